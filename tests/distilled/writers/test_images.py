"""Tests of `gift_jax.distilled.writers.images`."""

import numpy as np
import pytest

from gift_jax import distilled
from gift_jax.distilled import read_distilled
from tests.distilled.writers.samples import pixel_dataset, whitened_dataset, written


def test_8_bits_are_rounded_and_clipped(tmp_path):
    images = np.full((20, 4, 4, 3), 0.5, np.float32)
    images[:, 0, 0] = [-0.2, 1.2, 100.6 / 255]
    read = read_distilled(written(tmp_path, pixel_dataset(images), "parquet"))
    np.testing.assert_array_equal(read.images[0, 0, 0] * 255, [0, 255, 101])
    np.testing.assert_allclose(read.images[0, 1, 1] * 255, 128)


@pytest.mark.parametrize("format", ["folders", "folders_jpg", "parquet"])
def test_whitened_images_do_not_fit_8_bits(tmp_path, format):
    with pytest.raises(ValueError, match=r"ZCA-whitened.*save_distilled"):
        distilled.write_distilled(whitened_dataset("rfad"), tmp_path / "x", format)
    assert not list(tmp_path.iterdir())
