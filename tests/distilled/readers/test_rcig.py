"""Tests of `gift_jax.distilled.readers.rcig`."""

import numpy as np
import pytest

from gift_jax.distilled import read_distilled
from gift_jax.distilled.readers import rcig
from gift_jax.runtime.errors import InputError
from tests.distilled.readers.samples import (
    CENTRED,
    TINY_CIFAR,
    TRAIN_IMAGES,
    checkpoint,
    frepo_images,
)

PARAMS = {
    "x_proto": frepo_images() + 1,
    "y_proto": -CENTRED,
    "log_temp": np.float32(0),
}


def written(path, average):
    state = checkpoint(params=PARAMS, ema_average=average, train_it=15000)
    (path / "checkpoint_15000").write_bytes(state)
    return path


def test_the_average_is_taken(tmp_path):
    average = {**PARAMS, "x_proto": frepo_images(), "y_proto": 2 * CENTRED}
    path = written(tmp_path, average)
    assert rcig.matches(path)
    read = read_distilled(path, dataset=TINY_CIFAR, train_images=lambda: TRAIN_IMAGES)
    np.testing.assert_allclose(read.pixels(), TRAIN_IMAGES[:20] / 255, atol=1e-5)
    np.testing.assert_array_equal(read.soft_labels, 2 * CENTRED)
    assert read.metadata.method == "rcig"


def test_a_checkpoint_without_an_average_is_refused(tmp_path):
    path = written(tmp_path, None)
    with pytest.raises(InputError, match="no `ema_average`"):
        read_distilled(path, "rcig", dataset=TINY_CIFAR)
