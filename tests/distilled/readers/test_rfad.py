"""Tests of `gift_jax.distilled.readers.rfad`."""

import numpy as np
import pytest

from gift_jax.data import info
from gift_jax.distilled import read_distilled
from gift_jax.distilled.readers import (
    TrainImagesNeededError,
)
from tests.distilled.readers.samples import (
    CENTRED,
    FLOATS,
    LABELS,
    SHARED,
    TINY_CIFAR,
    TRAIN_IMAGES,
    ZCA,
    channels_first,
    neighbour_correlation,
    write_rfad,
)


class TestRfad:
    def test_whitened(self, tmp_path):
        path = write_rfad(tmp_path / "best.npz")
        read = read_distilled(path, dataset=TINY_CIFAR, train_images=TRAIN_IMAGES)
        np.testing.assert_array_equal(channels_first(read.images), ZCA["rfad"])
        np.testing.assert_allclose(read.pixels(), TRAIN_IMAGES[:20] / 255, atol=1e-5)
        np.testing.assert_array_equal(read.soft_labels, CENTRED)
        np.testing.assert_array_equal(read.labels, LABELS)
        assert read.metadata.method == "rfad"

    def test_greyscale_is_only_standardised(self, tmp_path):
        images = channels_first(info.FASHION_MNIST.apply(FLOATS[..., :1]))
        path = write_rfad(tmp_path / "best.npz", images=images)
        read = read_distilled(path, dataset="fashion")
        np.testing.assert_allclose(read.pixels(), FLOATS[..., :1], atol=1e-6)

    @pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
    def test_published_file_without_train_images(self):
        path = SHARED / "data/distilled/rfad_cifar10_ipc10.npz"
        with pytest.raises(TrainImagesNeededError, match="RFAD"):
            read_distilled(path)

    @pytest.mark.slow
    @pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
    def test_published_file_looks_like_images(self):
        from gift_jax.data import real

        train = real.load_dataset("cifar10", data_dir=SHARED / "data/tfds").train
        path = SHARED / "data/distilled/rfad_cifar10_ipc10.npz"
        read = read_distilled(path, train_images=train.all_images)
        low, high = np.percentile(read.pixels(), (5, 95))
        assert -0.5 < low < 0.1
        assert 0.9 < high < 1.5
        # Neighbouring pixels of pictures are alike, those of whitened ones are not.
        assert neighbour_correlation(read.pixels()) > 0.9
        assert neighbour_correlation(read.images) < 0.5
