"""Tests of `gift_jax.distilled.writers.npz`."""

import numpy as np

from gift_jax import distilled
from gift_jax.distilled import read_distilled
from tests.distilled.writers.samples import LOGITS, pixel_dataset, written


def test_npz_keeps_soft_labels(tmp_path):
    read = read_distilled(written(tmp_path, pixel_dataset(), "npz"))
    np.testing.assert_array_equal(read.soft_labels, LOGITS)
    again = tmp_path / "hard.npz"
    distilled.write_distilled(pixel_dataset(soft_labels=None), again, "npz")
    assert read_distilled(again).soft_labels is None
