"""What the tests here read and write."""

import pathlib

import numpy as np

from gift_jax import distilled
from gift_jax.data import info
from gift_jax.distilled import zca

FIXTURES = pathlib.Path(__file__).parents[2] / "fixtures"


TRAIN_IMAGES = np.load(FIXTURES / "data_zca.npz")["images"]


TINY_CIFAR = info.DatasetInfo("cifar10", 10, 4, 3, info.CIFAR)


RNG = np.random.default_rng(0)


LABELS = RNG.permutation(np.repeat(np.arange(10), 2)).astype(np.int32)


LOGITS = (RNG.normal(size=(20, 10)) + 9 * np.eye(10)[LABELS]).astype(np.float32)


def pixel_dataset(images=None, soft_labels=LOGITS):
    if images is None:
        images = TRAIN_IMAGES[:20].astype(np.float32) / 255
    return distilled.DistilledDataset(
        images=images,
        labels=LABELS,
        soft_labels=soft_labels,
        preprocess=info.CIFAR,
        metadata=distilled.Metadata("cifar10", 10, "rded", "test"),
    )


def whitened_dataset(method):
    whitening = zca.fit_kornia(TRAIN_IMAGES)
    labels = np.repeat(np.arange(10), 2).astype(np.int32)
    return distilled.DistilledDataset(
        images=whitening.apply(TRAIN_IMAGES[:20].astype(np.float32) / 255),
        labels=labels,
        soft_labels=(9 * np.eye(10)[labels]).astype(np.float32),
        preprocess=whitening,
        metadata=distilled.Metadata("cifar10", 10, method, "test"),
    )


def written(tmp_path, dataset, format):
    path = tmp_path / {"gift": "data.pt", "parquet": "cifar10.parquet"}.get(
        format, "cifar10.npz" if format == "npz" else "cifar10"
    )
    distilled.write_distilled(dataset, path, format)
    assert list(tmp_path.iterdir()) == [path]
    return path


def by_class(dataset):
    """Images in the order that class folders give them."""
    return dataset.images[np.argsort(dataset.labels, kind="stable")]
