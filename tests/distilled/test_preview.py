"""Tests of `gift_jax.data.preview`: which pixel of the picture shows what."""

import io

import numpy as np
import pytest
from PIL import Image

from gift_jax.data import preprocess
from gift_jax.distilled import preview
from gift_jax.distilled.dataset import DistilledDataset, Metadata

GAP = 2


def make_dataset(images, labels, transform=None):
    channels = images.shape[-1]
    return DistilledDataset(
        images=images.astype(np.float32),
        labels=np.array(labels),
        preprocess=transform
        or preprocess.Normalization((0.5,) * channels, (0.25,) * channels),
        metadata=Metadata("made", 1000, "made", "test"),
    )


def picture(dataset, tmp_path):
    preview.save_preview(dataset.pixels(), dataset.labels, tmp_path / "preview.png")
    with Image.open(tmp_path / "preview.png") as image:
        return np.array(image)


def tile(grid, row, column, side):
    top, left = row * (side + GAP) + GAP, column * (side + GAP) + GAP
    return grid[top : top + side, left : left + side]


def test_rows_are_classes_and_columns_their_images(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 40, 40, 3)) / 255
    grid = picture(make_dataset(images, [7, 3, 7, 3, 7]), tmp_path)
    assert grid.shape == (2 * 42 + GAP, 3 * 42 + GAP, 3)
    expected = np.rint(images * 255)
    for row, members in enumerate([[1, 3], [0, 2, 4]]):
        for column, index in enumerate(members):
            np.testing.assert_array_equal(tile(grid, row, column, 40), expected[index])
    assert (tile(grid, 0, 2, 40) == 255).all()  # class 3 has no third image
    assert (grid[:GAP] == 255).all()
    assert (grid[:, 42 : 42 + GAP] == 255).all()


@pytest.mark.parametrize(("side", "factor"), [(8, 4), (28, 2), (32, 1), (33, 1)])
def test_small_images_are_enlarged_by_whole_factors(side, factor, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (1, side, side, 1)) / 255
    grid = picture(make_dataset(image, [0]), tmp_path)
    enlarged = np.kron(np.rint(image[0, ..., 0] * 255), np.ones((factor, factor)))
    np.testing.assert_array_equal(grid[GAP:-GAP, GAP:-GAP], enlarged)


def test_no_more_than_20_classes_and_10_images(tmp_path):
    labels = np.repeat(np.arange(21), 11)
    images = np.zeros((len(labels), 32, 32, 1))
    grid = picture(make_dataset(images, labels), tmp_path)
    assert grid.shape == (20 * 34 + GAP, 10 * 34 + GAP)


def test_overshooting_pixels_are_clipped(tmp_path):
    images = np.full((1, 32, 32, 3), -0.5)
    images[:, :24] = 1.5
    grid = picture(make_dataset(images, [0]), tmp_path)
    assert (tile(grid, 0, 0, 32)[:24] == 255).all()
    assert (tile(grid, 0, 0, 32)[24:] == 0).all()


def test_whitened_images_are_shown_as_pixels(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 255, (2, 4, 4, 1)) / 255
    matrix = np.linalg.qr(rng.normal(size=(16, 16)))[0].astype(np.float32)
    transform = preprocess.Whitening(
        normalization=preprocess.Normalization((0.3,), (0.2,)),
        center=rng.normal(size=16).astype(np.float32),
        matrix=3 * matrix,
        inverse=matrix.T / 3,
    )
    dataset = make_dataset(transform.apply(pixels), [0, 1], transform)
    grid = picture(dataset, tmp_path)
    for row in range(2):
        np.testing.assert_array_equal(
            tile(grid, row, 0, 32)[::8, ::8], np.rint(pixels[row, ..., 0] * 255)
        )


def test_long_images_are_not_enlarged_beyond_measure(tmp_path):
    pixels = np.zeros((3, 1, 3000, 3), np.float32)
    preview.save_preview(pixels, np.arange(3), tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as grid:
        assert grid.size == (3004, 11)


def test_a_notebook_shows_the_same_picture(tmp_path):
    dataset = make_dataset(
        np.random.default_rng(0).uniform(size=(4, 32, 32, 3)), [0] * 4
    )
    with Image.open(io.BytesIO(dataset._repr_png_())) as image:
        np.testing.assert_array_equal(np.array(image), picture(dataset, tmp_path))
