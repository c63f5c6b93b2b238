"""Logits of a whole split, in its order, on any number of devices."""

import jax
import numpy as np
import pytest

from gift_jax.data import preprocess
from gift_jax.evaluators.predictions import SplitPredictions
from gift_jax.teachers import FlaxTeacher
from tests.evaluators.test_accuracy import (
    NORMALIZATION,
    PixelModel,
    plain_teacher,
    random_split,
    shifted,
)


def expected(split, shift):
    pixels = split.pixels.astype(np.float32)[:, None]
    return -((np.arange(10) - pixels - shift) ** 2)


@pytest.mark.parametrize("num_devices", [1, 4])
def test_logits_and_labels_are_those_of_the_split(num_devices):
    split = random_split(37)
    # With a preprocessing that is not the teachers'.
    asked = SplitPredictions(
        split, NORMALIZATION, devices=jax.devices()[:num_devices], batch_size=8
    )
    found = asked.of_model(PixelModel(), shifted(1))
    np.testing.assert_allclose(found.logits, expected(split, 1), rtol=1e-5)
    np.testing.assert_array_equal(found.labels, split.labels)
    other = SplitPredictions(
        split,
        preprocess.Normalization((0.1,), (0.9,)),
        devices=jax.devices()[:num_devices],
        batch_size=8,
    )
    network = FlaxTeacher("flax", PixelModel(), shifted(2), NORMALIZATION)
    for teacher in (network, plain_teacher(2)):
        found = other.of_teacher(teacher)
        np.testing.assert_allclose(found.logits, expected(split, 2), rtol=1e-5)
        np.testing.assert_array_equal(found.labels, split.labels)
