"""Tests of `gift_jax.distilled.writers.gift`."""

import dataclasses

import numpy as np
import pytest

from gift_jax import distilled
from gift_jax.distilled import read_distilled
from gift_jax.torch_io import torch_files
from tests.distilled.writers.samples import (
    LABELS,
    TINY_CIFAR,
    TRAIN_IMAGES,
    pixel_dataset,
    whitened_dataset,
    written,
)


@pytest.mark.parametrize(
    ("name", "official"),
    [("tiny_imagenet", "tinyimagenet"), ("imagenette", "imagenet-nette")],
)
def test_gift_uses_official_names(tmp_path, name, official):
    metadata = distilled.Metadata(name, 10, "random", "test")
    dataset = dataclasses.replace(pixel_dataset(), metadata=metadata)
    content = torch_files.load_torch(written(tmp_path, dataset, "gift"))
    assert content["dataset"] == official
    assert content["data"].shape == (20, 3, 4, 4)
    assert content["data"].dtype == np.float32
    assert content["label"].dtype == np.int64


def test_gift_takes_datm_as_it_is(tmp_path):
    dataset = whitened_dataset("datm")
    path = written(tmp_path, dataset, "gift")
    read = read_distilled(path, dataset=TINY_CIFAR, train_images=TRAIN_IMAGES)
    np.testing.assert_array_equal(read.images, dataset.images)
    np.testing.assert_array_equal(read.soft_labels, dataset.soft_labels)
    np.testing.assert_array_equal(read.preprocess.matrix, dataset.preprocess.matrix)


def test_datm_without_logits_is_written_as_pixels(tmp_path):
    dataset = dataclasses.replace(whitened_dataset("datm"), soft_labels=None)
    content = torch_files.load_torch(written(tmp_path, dataset, "gift"))
    assert content["label"].tolist() == dataset.labels.tolist()
    found = content["data"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, dataset.pixels(), atol=1e-6)


def test_pytorch_reads_data_pt(tmp_path):
    torch = pytest.importorskip("torch")
    content = torch.load(written(tmp_path, pixel_dataset(), "gift"), weights_only=True)
    assert content["dataset"] == "cifar10"
    assert content["label"].tolist() == LABELS.tolist()
    np.testing.assert_array_equal(
        content["data"].permute(0, 2, 3, 1).numpy(), pixel_dataset().images
    )
