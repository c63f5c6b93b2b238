"""What a training refuses before it begins."""

import jax
import numpy as np
import pytest

from gift_jax.runtime.errors import InputError
from gift_jax.soft_labels.fixed import FixedSoftLabels
from gift_jax.soft_labels.hard import HardLabels, SoftHardSoft
from gift_jax.soft_labels.online import OnlineSoftLabels
from gift_jax.train.check import check_fits
from gift_jax.train.fit import fit
from tests.train.training import (
    GIFT,
    NUM_CLASSES,
    VIEW_IMAGES,
    make_data,
    make_soft_labels,
    make_state,
)

STATE, DATA = make_state(), make_data()


def zeros(*shape):
    return np.zeros(shape, np.float32)


def test_what_belongs_together_passes():
    check_fits(STATE, DATA, None)
    check_fits(STATE, DATA, HardLabels(views=3))
    check_fits(STATE, DATA, make_soft_labels())
    check_fits(STATE, DATA, FixedSoftLabels(zeros(3, 40, NUM_CLASSES), views=3))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(10) % 4, r"shape \(10,\), expected integers of shape \(40,\)"),
        (np.zeros(40, np.float32), "labels are float32"),
        (np.full(40, 4), r"range over \[4, 4\], expected classes in \[0, 3\]"),
        (np.full(40, -1), r"range over \[-1, -1\]"),
    ],
)
def test_labels_that_are_not_one_class_an_image(labels, message):
    with pytest.raises(InputError, match=message):
        check_fits(STATE, DATA.replace(labels=labels), None)


def test_no_images_are_refused():
    empty = DATA.replace(images=DATA.images[:0], labels=DATA.labels[:0])
    with pytest.raises(InputError, match="there are no images to train on"):
        check_fits(STATE, empty, None)


@pytest.mark.parametrize(
    ("soft_labels", "message"),
    [
        (FixedSoftLabels(zeros(5, 4), views=3), r"shape \(5, 4\), expected .* N = 40"),
        (FixedSoftLabels(zeros(40, 5), views=3), r"shape \(40, 5\), expected"),
        (FixedSoftLabels(zeros(2, 40, 4), views=3), "of 2 views, but views is 3"),
        (OnlineSoftLabels(None, 41, 3, 10), "40 images, but soft labels of 41"),
        (
            SoftHardSoft(FixedSoftLabels(zeros(5, 4), views=3), 3, 1),
            r"shape \(5, 4\), expected .* N = 40",
        ),
    ],
)
def test_soft_labels_of_other_images(soft_labels, message):
    with pytest.raises(InputError, match=message):
        check_fits(STATE, DATA, soft_labels)


def test_a_training_begins_with_the_check():
    with pytest.raises(InputError, match=r"soft labels have the shape \(5, 4\)"):
        fit(
            STATE,
            DATA,
            FixedSoftLabels(zeros(5, 4), views=3),
            loss=GIFT,
            view_images=VIEW_IMAGES,
            epochs=1,
            batch_size=10,
            order_key=jax.random.key(0),
        )
