"""Soft labels that a teacher makes while a student trains."""

import numpy as np
import pytest

from gift_jax.runtime.errors import InputError
from gift_jax.soft_labels import relabel, store
from gift_jax.soft_labels.codecs import get_codec
from gift_jax.soft_labels.online import OnlineSoftLabels

NUM_IMAGES, NUM_CLASSES, VIEWS = 21, 5, 3


def any_logits(view, indices):
    """What a teacher could say; a function of the view and the image."""
    classes = np.arange(NUM_CLASSES)
    return np.sin(view + (1 + indices[:, None]) * (1 + classes)).astype(np.float32)


@pytest.mark.parametrize("name", ["float16", "int8", "top2"])
def test_online_labels_are_the_stored_ones(tmp_path, name):
    codec = get_codec(name)
    stored = store.open_store(
        tmp_path / "logits",
        views=VIEWS,
        num_images=NUM_IMAGES,
        num_classes=NUM_CLASSES,
        codec=codec,
    )
    relabel.relabel(stored, any_logits, batch_size=8)
    online = OnlineSoftLabels(any_logits, NUM_IMAGES, VIEWS, 8, codec)
    view = online.start_reading(2)()
    assert int(view.number) == 2
    np.testing.assert_array_equal(view.logits, stored.read(2))
    assert len(np.unique(view.logits[0])) == (3 if name == "top2" else NUM_CLASSES)


def test_a_broken_teacher_is_an_error_as_in_a_store():
    online = OnlineSoftLabels(lambda view, i: np.full((len(i), 5), np.nan), 4, 1, 2)
    with pytest.raises(InputError, match=r"view 0 hold nan \(image 0, class 0\)"):
        online.start_reading(0)
