"""Soft labels that are there as arrays."""

import numpy as np
import pytest

from gift_jax.runtime.errors import InputError
from gift_jax.soft_labels.base import prefetched
from gift_jax.soft_labels.fixed import FixedSoftLabels


def test_fixed_soft_labels_are_the_same_for_every_view():
    logits = np.random.default_rng(0).normal(size=(10, 6)).astype(np.float32)
    fixed = FixedSoftLabels(logits, views=5)
    assert fixed.views == 5
    views = list(prefetched(fixed.start_reading, [0, 4, 2]))
    assert [int(view.number) for view in views] == [0, 4, 2]
    for view in views:
        np.testing.assert_array_equal(view.logits, logits)


def test_labels_of_every_view_are_those_of_the_view():
    logits = np.random.default_rng(0).normal(size=(3, 10, 6)).astype(np.float16)
    labels = FixedSoftLabels(logits, views=3)
    assert labels.views == 3
    for number, view in zip(
        [2, 0], prefetched(labels.start_reading, [2, 0]), strict=True
    ):
        assert int(view.number) == number
        np.testing.assert_array_equal(view.logits, logits[number])


def test_what_are_no_labels_is_refused():
    with pytest.raises(InputError, match="soft labels are None"):
        FixedSoftLabels(None, views=3)
    with pytest.raises(InputError, match="views is 0, expected at least 1"):
        FixedSoftLabels(np.zeros((10, 6), np.float32), views=0)


@pytest.mark.parametrize("number", [np.nan, -np.inf])
def test_labels_that_are_no_numbers_are_refused(number):
    logits = np.zeros((3, 10, 6), np.float16)
    logits[2, 4, 1] = number
    with pytest.raises(InputError, match="soft labels hold NaN or infinity"):
        FixedSoftLabels(logits, views=3)
