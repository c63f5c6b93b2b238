"""What is asked reaches every image once; the rest is in test_accuracy.py."""

import jax
import numpy as np
import pytest

from gift_jax.evaluators.answers import SplitAnswers
from gift_jax.runtime.devices import AXIS
from gift_jax.teachers import FlaxTeacher
from tests.evaluators.test_accuracy import (
    NORMALIZATION,
    PixelModel,
    plain_teacher,
    random_split,
    shifted,
)


def best_logits(logits, labels):
    """The sum over real images of the largest logit, and how many there are."""
    real = labels >= 0
    return jax.lax.psum(((logits.max(axis=1) * real).sum(), real.sum()), AXIS)


@pytest.mark.parametrize("num_devices", [1, 4])
def test_answers_are_reduced_over_devices_batch_by_batch(num_devices):
    split = random_split(37)
    asked = SplitAnswers(
        split,
        NORMALIZATION,
        best_logits,
        devices=jax.devices()[:num_devices],
        batch_size=8,
    )
    pixels = split.pixels.astype(np.float32)[:, None]
    expected = -((np.arange(10) - pixels - 1) ** 2).min(axis=1).sum()
    network = FlaxTeacher("one", PixelModel(), shifted(1), NORMALIZATION)
    for answers in (
        asked.of_model(PixelModel(), shifted(1)),
        asked.of_teacher(network),
        asked.of_teacher(plain_teacher(1)),
    ):
        sums, counts = zip(*answers, strict=True)
        assert len(counts) == 5 and sum(counts) == 37
        np.testing.assert_allclose(sum(sums), expected, rtol=1e-5)
