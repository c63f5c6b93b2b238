"""Tests of `gift_jax.distilled.readers.frepo`."""

import numpy as np
import pytest

from gift_jax.data import info
from gift_jax.distilled import read_distilled
from tests.distilled.readers.samples import (
    CENTRED,
    FLOATS,
    TINY_CIFAR,
    TRAIN_IMAGES,
    checkpoint,
    frepo_images,
)


class TestFrepo:
    def check(self, path, method, **labels):
        read = read_distilled(
            path, dataset=TINY_CIFAR, train_images=lambda: TRAIN_IMAGES
        )
        np.testing.assert_allclose(read.pixels(), TRAIN_IMAGES[:20] / 255, atol=1e-5)
        assert read.metadata.method == method
        return read

    def test_checkpoint(self, tmp_path):
        state = checkpoint(epoch=1, best_val_acc=0.5, ema_average=None)
        (tmp_path / "checkpoint_500000").write_bytes(state)
        for path in (tmp_path, tmp_path / "checkpoint_500000"):
            read = self.check(path, "frepo")
            np.testing.assert_array_equal(read.soft_labels, CENTRED)

    def test_npz(self, tmp_path):
        np.savez(tmp_path / "step.npz", image=frepo_images(), label=CENTRED)
        self.check(tmp_path / "step.npz", "frepo")
        (tmp_path / "step.npz").rename(tmp_path / "best")
        self.check(tmp_path / "best", "frepo")

    def test_greyscale_is_only_standardised(self, tmp_path):
        images = info.FASHION_MNIST.apply(FLOATS[..., :1])
        np.savez(tmp_path / "x.npz", image=images, label=CENTRED)
        read = read_distilled(tmp_path / "x.npz", dataset="fashion_mnist")
        np.testing.assert_allclose(read.pixels(), FLOATS[..., :1], atol=1e-6)

    def test_malformed(self, tmp_path):
        whole = checkpoint()
        path = tmp_path / "checkpoint_1"
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match="no distilled dataset of a known format"):
            read_distilled(path, dataset="cifar10")
        with pytest.raises(ValueError, match="may be truncated"):
            read_distilled(path, "frepo", dataset="cifar10")
        path.write_bytes(whole)
        with pytest.raises(ValueError, match="blocks of 64"):
            read_distilled(path, dataset="imagenette")
