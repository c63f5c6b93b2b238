"""`data.pt` of the GIFT evaluator, as CIM writes it.

The reader of https://github.com/LINs-lab/GIFT is `validate/evaluator_benchmark.py`.
The same dict holds DATM's data, whose images are network inputs and whose `label` are
learnt logits, (N, C) floats. Images in [0, 1] are pixels, whatever their labels.
"""

import pathlib

import numpy as np

from gift_jax.data import info as info_lib
from gift_jax.distilled.dataset import DistilledDataset
from gift_jax.distilled.readers import arrays, datm
from gift_jax.distilled.readers.request import Request
from gift_jax.runtime.errors import InputError
from gift_jax.torch_io import torch_files

FILE = "data.pt"
LOOKS_LIKE = (
    "data.pt, or another .pt: a dict of `dataset` (name), `data` (N, C, H, W) float in "
    "[0, 1], `label` (N,) integers"
)
# Of 98% of the values; of whitened and of standardised ones half are negative.
_PIXELS = (-0.1, 1.1)


def matches(path: pathlib.Path) -> bool:
    """Whether the path is a .pt file or a directory with data.pt."""
    return (path.is_file() and path.suffix == ".pt") or (path / FILE).is_file()


def read(request: Request) -> DistilledDataset:
    """Reads the dict; see `read_distilled`."""
    path = request.path / FILE if request.path.is_dir() else request.path
    content = torch_files.load_torch(path, max_bytes=request.max_bytes)
    expected = {"dataset", "data", "label"}
    if not isinstance(content, dict) or not expected <= content.keys():
        keys = sorted(map(str, content)) if isinstance(content, dict) else []
        raise InputError(
            f"{path} holds a {type(content).__name__} with the keys {keys[:10]}, "
            f"expected a dict with {sorted(expected)}"
        )
    info = request.info(content["dataset"])
    images, labels = content["data"], content["label"]
    if not (isinstance(images, np.ndarray) and isinstance(labels, np.ndarray)):
        raise InputError(f"{path}: `data` and `label` must be tensors")
    if images.ndim != 4 or images.shape[1] != info.channels:
        raise InputError(
            f"{path}: `data` has shape {images.shape}, expected (N, {info.channels}, "
            f"H, W) for {info.name}"
        )
    images = np.moveaxis(images, 1, -1)
    if (
        labels.ndim == 2
        and labels.shape[1] > 1
        and np.issubdtype(labels.dtype, np.floating)
    ):
        return _soft_labelled(request, info, images, labels)
    # The evaluator squeezes (N, 1).
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    return arrays.pixel_dataset(request, info, images, labels)


def _soft_labelled(
    request: Request,
    info: info_lib.DatasetInfo,
    images: np.ndarray,
    soft_labels: np.ndarray,
) -> DistilledDataset:
    low, high = np.percentile(images, (1, 99)) if images.size else (0, 0)
    if low < _PIXELS[0] or high > _PIXELS[1]:
        return datm.learnt_dataset(request, info, images, soft_labels)
    labels, origin = arrays.hard_labels(soft_labels)
    return arrays.pixel_dataset(
        request, info, images, labels, soft_labels, method="gift", hard_labels=origin
    )
