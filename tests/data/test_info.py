"""Tests of `gift_jax.data.info`: the table of real datasets."""

import pathlib

import numpy as np
import pytest

from gift_jax.data import info, real
from gift_jax.runtime.errors import UnknownNameError

SHARED_TFDS = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data" / "tfds"


def test_digits_statistics_are_those_in_the_table():
    pixels = real.load_dataset("digits").train.all_images() / 255
    np.testing.assert_allclose(pixels.mean(), info.DIGITS.mean[0], atol=5e-5)
    np.testing.assert_allclose(pixels.std(), info.DIGITS.std[0], atol=5e-5)


@pytest.mark.skipif(not SHARED_TFDS.is_dir(), reason="needs ../shared/data/tfds")
def test_fashion_mnist_has_the_statistics_of_the_table():
    dataset = real.load_dataset("fashion_mnist", data_dir=SHARED_TFDS)
    pixels = dataset.test.all_images() / 255
    assert pixels.shape == (10_000, 28, 28, 1)
    # Those in the table are of the train split.
    np.testing.assert_allclose(pixels.mean(), info.FASHION_MNIST.mean[0], atol=2e-3)
    np.testing.assert_allclose(pixels.std(), info.FASHION_MNIST.std[0], atol=2e-3)


@pytest.mark.skipif(not SHARED_TFDS.is_dir(), reason="needs ../shared/data/tfds")
@pytest.mark.parametrize("name", info.CLASS_NAMES)
def test_class_names_are_those_of_tfds(name):
    (path,) = (SHARED_TFDS / name).glob("*/label.labels.txt")
    assert info.CLASS_NAMES[name] == tuple(path.read_text().split())


def test_names_of_other_projects():
    for alias, name in info.ALIASES.items():
        assert info.dataset_info(alias.upper()) is info.DATASETS[name]
    assert info.dataset_info("CIFAR10").normalization.mean == (0.4914, 0.4822, 0.4465)


def test_an_unknown_name_is_told_what_else_there_is():
    with pytest.raises(
        UnknownNameError, match=r"did you mean 'cifar10'\?.*folder:PATH"
    ):
        info.dataset_info("cifar11")


def test_entries_fit_together():
    for name, entry in info.DATASETS.items():
        assert entry.name == name
        assert len(entry.normalization.mean) == entry.channels
        assert entry.train_split != entry.test_split
