"""The three files of DATM: learnt images, learnt logits, learnt learning rate.

https://github.com/NUS-HPC-AI-Lab/DATM. Its configs whiten CIFAR and Tiny-ImageNet
with kornia's ZCA (`zca: True`) and normalise the others with ImageNet's channel
statistics. Neither is written into the files.
"""

import pathlib
from typing import Any

import numpy as np

from gift_jax.data import info as info_lib
from gift_jax.distilled import zca
from gift_jax.distilled.dataset import DistilledDataset
from gift_jax.distilled.readers import arrays
from gift_jax.distilled.readers.request import Request
from gift_jax.runtime.errors import InputError
from gift_jax.torch_io import torch_files

IMAGES, LABELS, LEARNING_RATE = "images_best.pt", "labels_best.pt", "lr_best.pt"
LOOKS_LIKE = (
    f"a directory with {IMAGES} (N, C, H, W), {LABELS} (N, classes) and {LEARNING_RATE}"
)
_WHITENED = ("cifar10", "cifar100", "tiny_imagenet")


def matches(path: pathlib.Path) -> bool:
    """Whether the path is a directory with DATM's images."""
    return (path / IMAGES).is_file()


def read(request: Request) -> DistilledDataset:
    """Reads the three files; see `read_distilled`."""
    images = _tensor(request, IMAGES, axes=4)
    soft_labels = _tensor(request, LABELS, axes=2)
    learning_rate = _tensor(request, LEARNING_RATE, axes=None)
    return learnt_dataset(
        request,
        request.info(),
        np.moveaxis(images, 1, -1),
        soft_labels,
        learning_rate=float(learning_rate.item()),
    )


def learnt_dataset(
    request: Request,
    info: info_lib.DatasetInfo,
    images: np.ndarray,
    soft_labels: np.ndarray,
    learning_rate: float | None = None,
) -> DistilledDataset:
    """DATM's dataset from its arrays.

    Args:
      request: What was asked for.
      info: The real dataset.
      images: (N, H, W, C) float network inputs.
      soft_labels: (N, num_classes) float logits.
      learning_rate: The learnt one.
    """
    metadata = {"method": "datm", "learning_rate": learning_rate}
    if info.name in _WHITENED:
        train_images = request.load_train_images(info, images.shape[1:], "DATM")
        whitening = zca.fit_kornia(train_images)
        return arrays.whitened_dataset(
            request, info, images, soft_labels, whitening, **metadata
        )
    return arrays.standardised_dataset(request, info, images, soft_labels, **metadata)


def _tensor(request: Request, name: str, axes: int | None) -> np.ndarray:
    path = request.path / name
    value: Any = torch_files.load_torch(path, max_bytes=request.max_bytes)
    array = np.asarray(value, float) if isinstance(value, int | float) else value
    if not isinstance(array, np.ndarray) or axes not in (None, array.ndim):
        found = getattr(array, "shape", type(array).__name__)
        raise InputError(f"{path} holds {found}, expected a tensor of {axes} axes")
    if axes is None and array.size != 1:
        raise InputError(f"{path} holds a tensor {array.shape}, expected one number")
    return array
