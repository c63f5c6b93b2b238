"""Tests of `gift_jax.distilled.writers.datm`."""

import dataclasses

import numpy as np
import pytest

from gift_jax import data, distilled
from gift_jax.distilled import read_distilled, zca
from gift_jax.runtime.errors import InputError
from tests.distilled.readers.samples import SMOOTH
from tests.distilled.writers.samples import (
    TINY_CIFAR,
    TRAIN_IMAGES,
    pixel_dataset,
    whitened_dataset,
)


@pytest.mark.parametrize("rate", [None, 0.015625])
def test_what_is_written_is_read_as_their_files_are(tmp_path, rate):
    dataset = whitened_dataset("datm")
    metadata = dataclasses.replace(dataset.metadata, learning_rate=rate)
    dataset = dataclasses.replace(dataset, metadata=metadata)
    distilled.write_distilled(dataset, tmp_path / "cifar10", "datm")
    read = read_distilled(
        tmp_path / "cifar10", dataset=TINY_CIFAR, train_images=TRAIN_IMAGES
    )
    assert read.fingerprint == dataset.fingerprint
    assert read.metadata.learning_rate == rate
    assert (read.metadata.method == "datm") == (rate is not None)


@pytest.mark.parametrize("rate", [None, 0.015625])
@pytest.mark.parametrize("name", ["cifar10", "cifar100", "cifar100_random"])
def test_pixels_come_back_whatever_they_are_standardised_with(tmp_path, name, rate):
    info = data.DATASETS[name.partition("_")[0]]
    dataset = distilled.DistilledDataset(
        images=np.resize(SMOOTH, (100, 4, 4, 3)),
        labels=np.arange(100) % info.num_classes,
        soft_labels=np.resize(np.eye(info.num_classes), (100, info.num_classes)),
        preprocess=data.DATASETS["imagenet10"].normalization,
        metadata=distilled.Metadata(
            info.name, info.num_classes, "unknown", "", learning_rate=rate
        ),
        are_pixels=True,
    )
    distilled.write_distilled(dataset, tmp_path / name, "datm")
    read = read_distilled(tmp_path / name, dataset=info.name)
    np.testing.assert_allclose(read.pixels(), dataset.images, atol=1e-6)


@pytest.mark.parametrize("format", ["datm", "gift"])
@pytest.mark.parametrize(
    ("fit", "channels", "message"),
    [
        (zca.fit_rfad, 3, "by another convention than DATM's"),
        (zca.fit_kip, 3, "by another convention than DATM's"),
        (zca.fit_kornia, 1, "grey and whitened"),
    ],
)
def test_whitened_images_that_readers_take_for_others_are_refused(
    tmp_path, format, fit, channels, message
):
    train_images = TRAIN_IMAGES[..., :channels]
    whitening = fit(train_images)
    inputs = whitening.apply(train_images[:20].astype(np.float32) / 255)
    dataset = dataclasses.replace(
        whitened_dataset("datm"), images=inputs, preprocess=whitening
    )
    with pytest.raises(InputError, match=message):
        distilled.write_distilled(dataset, tmp_path / "x", format)
    assert not list(tmp_path.iterdir())


def test_soft_labels_are_needed(tmp_path):
    with pytest.raises(InputError, match="'datm' holds soft labels"):
        distilled.write_distilled(pixel_dataset(None, None), tmp_path / "x", "datm")
    assert not list(tmp_path.iterdir())
