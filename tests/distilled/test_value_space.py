"""Tests of `gift_jax.distilled.value_space`, on what others published."""

import ml_dtypes
import numpy as np
import pytest

from gift_jax.data import info
from gift_jax.distilled import DistilledDataset, Metadata
from gift_jax.distilled.value_space import value_space
from gift_jax.runtime.errors import InputError
from tests.distilled.readers.samples import FIXTURES

PUBLISHED = np.load(FIXTURES / "published/value_spaces.npz")
REAL = np.load(FIXTURES / "data_zca.npz")["images"][:20] / np.float32(255)
GREY = np.zeros((20, 8, 8, 1), np.float32)  # a digit on black
GREY[:, 2:6, 3:6] = 0.9
GREY[:, 4, 4] = 0.4


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_images(name):
    images = PUBLISHED[name].astype(np.float32)
    assert value_space(images) == name.split("_")[0]


@pytest.mark.parametrize("name", [n for n in PUBLISHED if n.startswith("stand")])
def test_what_is_standardised_becomes_pixels(name):
    images = info.CIFAR.invert(PUBLISHED[name])
    assert value_space(images) == "pixels"


@pytest.mark.parametrize("pixels", [PUBLISHED["pixels_rded"].astype(np.float32), GREY])
@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda x: x, "pixels"),
        (lambda x: 1.1 * x - 0.05, "pixels"),
        (lambda x: 2 * x - 1, "[-1, 1]"),
        (lambda x: x - x.mean(), "mean-subtracted"),
        (lambda x: x - x.mean(axis=(0, 1, 2)), "mean-subtracted"),
        (lambda x: (x - x.mean()) / x.std(), "standardised"),
        (lambda x: x * 255, "[0, 255], to be divided by 255"),
        (lambda x: x / 255 / 255, "[0, 1/255], divided by 255 twice"),
    ],
)
def test_other_spaces(pixels, change, found):
    assert value_space(change(pixels)) == found


def test_a_white_background():
    white = 1 - GREY
    assert value_space(white) == "pixels"
    assert value_space(white - white.mean()) == "mean-subtracted"
    assert value_space(2 * white - 1) == "[-1, 1]"


def test_flat_and_single_pixels_are_no_fault():
    assert value_space(np.zeros((3, 4, 4, 1), np.float32)) == "pixels"
    assert value_space(np.full((3, 4, 4, 1), 1 / 255, np.float32)) == "pixels"
    assert value_space(np.full((1, 1, 1, 1), 0.5, np.float32)) == "pixels"
    assert value_space(np.full((1, 1, 1, 1), -9, np.float32)) == "standardised"


def dataset(images):
    labels = np.arange(len(images)) % 10
    return DistilledDataset(
        images, labels, Metadata("cifar10", 10, "test", "test"), info.CIFAR
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: 2 * x - 1, r"look like values in \[-1, 1\]"),
        (lambda x: x - x.mean(), "look mean-subtracted"),
        (info.CIFAR.apply, r"98% .*look standardised: undo it .*other statistics"),
        (lambda x: PUBLISHED["whitened_datm"].astype(np.float32), "look ZCA-whitened"),
    ],
)
def test_every_dataset_is_checked(change, message):
    pixels = PUBLISHED["pixels_rded"].astype(np.float32)
    assert len(dataset(pixels)) == 10
    with pytest.raises(InputError, match=message) as caught:
        dataset(change(pixels))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_floats(dtype):
    images = dataset(REAL[:10].astype(dtype)).images
    assert images.dtype == np.float32
    np.testing.assert_allclose(images, REAL[:10], atol=1 / 256)
