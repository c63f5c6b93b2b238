"""Tests of `gift_jax.distilled.readers.datm`."""

import numpy as np
import pytest

from gift_jax.data import info
from gift_jax.distilled import read_distilled
from gift_jax.distilled.readers import (
    TrainImagesNeededError,
)
from gift_jax.runtime.errors import InputError
from gift_jax.torch_io import torch_files
from tests.distilled.readers.samples import (
    FLOATS,
    LABELS,
    RNG,
    TINY_CIFAR,
    TRAIN_IMAGES,
    ZCA,
    channels_first,
    write_datm,
    write_gift,
)


class TestDatm:
    logits = (RNG.normal(size=(20, 10)) + 9 * np.eye(10)[LABELS]).astype(np.float32)

    def test_whitened_by_kornia(self, tmp_path):
        root = write_datm(tmp_path / "cifar10", ZCA["kornia"], self.logits)
        read = read_distilled(
            root, dataset=TINY_CIFAR, train_images=lambda: TRAIN_IMAGES
        )
        np.testing.assert_array_equal(channels_first(read.images), ZCA["kornia"])
        np.testing.assert_allclose(read.pixels(), TRAIN_IMAGES[:20] / 255, atol=1e-5)
        np.testing.assert_array_equal(read.soft_labels, self.logits)
        np.testing.assert_array_equal(read.labels, LABELS)
        assert read.metadata.method == "datm"
        assert read.metadata.hard_labels == "class"
        assert read.metadata.learning_rate == pytest.approx(0.0123)

    def test_merged_into_data_pt(self, tmp_path):
        path = write_gift(tmp_path, data=ZCA["kornia"], label=self.logits)
        read = read_distilled(path, dataset=TINY_CIFAR, train_images=TRAIN_IMAGES)
        assert read.is_whitened
        np.testing.assert_array_equal(read.soft_labels, self.logits)

    def test_normalised_where_its_config_does_not_whiten(self, tmp_path):
        inputs = info.IMAGENET.apply(FLOATS)
        root = write_datm(tmp_path, channels_first(inputs), self.logits)
        read = read_distilled(root, dataset="imagenette")
        np.testing.assert_allclose(read.pixels(), FLOATS, atol=1e-6)
        assert not read.is_whitened

    def test_needs_train_images(self, tmp_path):
        root = write_datm(tmp_path, ZCA["kornia"], self.logits)
        with pytest.raises(TrainImagesNeededError, match=r"DATM .*train_images="):
            read_distilled(root, dataset="cifar10")
        with pytest.raises(ValueError, match=r"\(150, 2, 4, 3\).*\(N, 4, 4, 3\)"):
            read_distilled(root, dataset="cifar10", train_images=TRAIN_IMAGES[:, :2])

    def test_malformed(self, tmp_path):
        root = write_datm(tmp_path, ZCA["kornia"], self.logits[:, :7])
        with pytest.raises(ValueError, match=r"\(20, 7\).*\(20, 10\)"):
            read_distilled(root, dataset=TINY_CIFAR, train_images=TRAIN_IMAGES)
        torch_files.save_torch(root / "labels_best.pt", LABELS)
        with pytest.raises(ValueError, match=r"labels_best\.pt holds \(20,\)"):
            read_distilled(root, dataset="cifar10")
        (root / "labels_best.pt").unlink()
        with pytest.raises(FileNotFoundError, match="labels_best"):
            read_distilled(root, dataset="cifar10")

    def test_a_learning_rate_is_a_number(self, tmp_path):
        root = write_datm(tmp_path, ZCA["kornia"], self.logits, np.nan)
        with pytest.raises(InputError, match="learning rate is nan"):
            read_distilled(root, dataset=TINY_CIFAR, train_images=TRAIN_IMAGES)
        torch_files.save_torch(root / "lr_best.pt", 2**70)
        read = read_distilled(root, dataset=TINY_CIFAR, train_images=TRAIN_IMAGES)
        assert read.metadata.learning_rate == 2.0**70
