"""From the arrays of a file to a checked `DistilledDataset`."""

import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from gift_jax.data import info, preprocess
from gift_jax.distilled import standardised, zca
from gift_jax.distilled.dataset import (
    DistilledDataset,
    Metadata,
    from_uint8,
    is_float,
)
from gift_jax.distilled.readers import request as request_lib
from gift_jax.distilled.value_space import STANDARDISED, WHITENED, value_space
from gift_jax.runtime.errors import InputError

# Images that were whitened in the convention that they are un-whitened in look like
# pixels again; those of RFAD have percentiles of -0.7 and 1.8. In a wrong convention
# they miss [0, 1] by far: plain pixels end near 4.
_UNWHITENED_RANGE = (-2.0, 3.0)
# Methods whose images have GIFT's statistics; those of all others have DC's.
_OF_GIFT = ("mtt", "datm")
# First bytes of files: of torch.save before its zip format, and of parquet.
_MAGIC = {
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.": "torch",
    b"PAR1": "parquet",
}
_SUFFIXES = {
    ".npz": "npz", ".parquet": "parquet",
    ".pt": "torch", ".pth": "torch", ".th": "torch", ".tar": "torch",
}  # fmt: skip


def kind_of(path: pathlib.Path) -> str | None:
    """What a file is by its content: "npz", "torch", "parquet" or None.

    The suffix decides where the content is damaged.
    """
    if not path.is_file():
        return None
    try:
        with path.open("rb") as stream:
            begin = stream.read(16)
    except OSError:
        return None
    for magic, kind in _MAGIC.items():
        if begin.startswith(magic):
            return kind
    if begin.startswith(b"PK") and (names := _members(path)):
        if any(name.endswith("/data.pkl") for name in names):
            return "torch"
        return "npz" if all(name.endswith(".npy") for name in names) else None
    return _SUFFIXES.get(path.suffix.lower())


def as_floats(array: np.ndarray) -> np.ndarray:
    """Floats of any kind as float32; anything else as it is.

    NumPy stores bfloat16 as two bytes without a meaning.
    """
    if array.dtype == np.dtype("V2"):
        array = array.view(ml_dtypes.bfloat16)
    with np.errstate(over="ignore"):
        return array.astype(np.float32) if is_float(array) else array


def channels_last(images: np.ndarray) -> np.ndarray:
    """(N, C, H, W) or (N, H, W, C) of 1 or 3 channels -> (N, H, W, C).

    Raises:
      InputError: no axis, or both, can be the channels.
    """
    if images.ndim == 4:
        first, last = images.shape[1] in (1, 3), images.shape[3] in (1, 3)
        if first != last:
            return np.moveaxis(images, 1, -1) if first else images
    raise InputError(
        f"images have shape {images.shape}, expected (N, C, H, W) or (N, H, W, C) "
        "with C = 1 or 3"
    )


def hard_labels(soft_labels: np.ndarray) -> tuple[np.ndarray, str]:
    """The classes of images that only have soft labels.

    DATM, FRePo and RCIG start from the same number of real images of each class, in
    order, and learn the labels. The class is that of the initial image where the labels
    still agree with this order, more than half-way from chance to all of them, and the
    argmax of the label otherwise. The argmax wins, too, where it has as many images of
    every class, in another order: these labels are of shuffled images.

    Args:
      soft_labels: (N, C) float.

    Returns:
      (N,) int32 and how they were obtained, see `Metadata.hard_labels`: "class" for
      the order of classes, or "argmax".

    Raises:
      InputError: `soft_labels` does not have two axes.
    """
    if soft_labels.ndim != 2:
        raise InputError(f"soft labels have shape {soft_labels.shape}, expected (N, C)")
    num_images, num_classes = soft_labels.shape
    argmax = soft_labels.argmax(axis=1).astype(np.int32)
    if num_images % num_classes == 0:
        in_order = np.arange(num_classes, dtype=np.int32)
        in_order = in_order.repeat(num_images // num_classes)
        if np.array_equal(argmax, in_order):
            return in_order, "class"
        is_shuffled = np.array_equal(np.sort(argmax), in_order)
        agreement = np.mean(argmax == in_order)
        if agreement > (1 + 1 / num_classes) / 2 and not is_shuffled:
            return in_order, "class"
    return argmax, "argmax"


def class_labels(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Hard labels, soft labels if there are any, and where the hard ones are from.

    Args:
      labels: (N,) or (N, 1) integers, or (N, classes) floats, which are soft labels.
    """
    labels = as_floats(labels)
    if labels.ndim == 2 and labels.shape[1] > 1 and is_float(labels):
        hard, origin = hard_labels(labels)
        return hard, labels, origin
    is_column = labels.ndim == 2 and labels.shape[1] == 1
    return labels[:, 0] if is_column else labels, None, "class"


def learnt_dataset(
    request: request_lib.Request,
    info: info.DatasetInfo,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    space: str | None = None,
    statistics: preprocess.Normalization | None = None,
    fit: Callable[[np.ndarray], preprocess.Whitening] = zca.fit_kornia,
    convention: str = "DATM",
    **metadata: Any,
) -> DistilledDataset:
    """A dataset of pixels, or of whitened network inputs.

    Standardised images are turned into pixels.

    Args:
      request: What was asked for.
      info: The real dataset.
      images: (N, H, W, C) floats in any space, or uint8.
      labels: See `class_labels`.
      space: `STANDARDISED` or `WHITENED` where the format says it; by default what the
        distribution of the images tells.
      statistics: Channel statistics of standardised images; by default those of MTT and
        DATM for their images, and of DC's family for all others.
      fit: Fits the whitening of whitened images to real train images.
      convention: Project whose whitening `fit` is, for messages.
      **metadata: Fields of `Metadata`.

    Raises:
      InputError: the images are in no known space, or not whitened as `fit` does it.
    """
    images = as_floats(images)
    hard, soft, origin = class_labels(labels)
    metadata = {"hard_labels": origin, **metadata}
    can_tell = is_float(images) and images.size and np.isfinite(images).all()
    if space is None and can_tell:
        space = value_space(images)
    if space == WHITENED:
        train_images = request.load_train_images(info, images.shape[1:], convention)
        whitening = fit(train_images)
        _require_whitened(images, whitening, info)
        return _dataset(request, info, images, hard, whitening, soft, metadata)
    if space == STANDARDISED:
        method = metadata.get("method", request.method())
        known = standardised.of_gift if method in _OF_GIFT else standardised.of_dc
        images = (statistics or known(info)).invert(images)
    return pixel_dataset(request, info, images, hard, soft, **metadata)


def pixel_dataset(
    request: request_lib.Request,
    info: info.DatasetInfo,
    images: np.ndarray,
    labels: np.ndarray,
    soft_labels: np.ndarray | None = None,
    **metadata: Any,
) -> DistilledDataset:
    """A dataset of pixels.

    Args:
      request: What was asked for.
      info: The real dataset.
      images: (N, H, W, C) float pixels in [0, 1], or uint8.
      labels: (N,) integers.
      soft_labels: (N, num_classes) float.
      **metadata: Fields of `Metadata`.
    """
    images = from_uint8(images) if images.dtype == np.uint8 else as_floats(images)
    return _dataset(
        request, info, images, labels, info.normalization, soft_labels, metadata
    )


def _require_whitened(
    images: np.ndarray, whitening: preprocess.Whitening, info: info.DatasetInfo
) -> None:
    low, high = np.percentile(whitening.invert(images), (1, 99))
    if low < _UNWHITENED_RANGE[0] or high > _UNWHITENED_RANGE[1]:
        raise InputError(
            f"un-whitened, 98% of the pixels range over [{low:.3g}, {high:.3g}], "
            f"expected less than {list(_UNWHITENED_RANGE)}: the images are not "
            "whitened, or in another convention, or were made from another dataset "
            f"than {info.name}"
        )


def _dataset(
    request: request_lib.Request,
    info: info.DatasetInfo,
    images: np.ndarray,
    labels: np.ndarray,
    transform: preprocess.Preprocess,
    soft_labels: np.ndarray | None,
    metadata: dict[str, Any],
) -> DistilledDataset:
    if images.shape[-1] != info.channels:
        raise InputError(
            f"images of shape {images.shape} have {images.shape[-1]} channels, but "
            f"{info.name} has {info.channels}"
        )
    known = {"method": request.method(), "source": str(request.path), **metadata}
    return DistilledDataset(
        images=images,
        labels=labels,
        soft_labels=soft_labels,
        preprocess=transform,
        metadata=Metadata(dataset=info.name, num_classes=info.num_classes, **known),
    )


def array_names(path: pathlib.Path) -> set[str]:
    """Names of the arrays in an npz file; empty where the path is no such file."""
    names = _members(path) if path.is_file() else []
    return {name.removesuffix(".npy") for name in names if name.endswith(".npy")}


def _members(path: pathlib.Path) -> list[str]:
    """Names in a zip archive; none where it is damaged, or no archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except Exception:  # damaged bytes raise a dozen different types
        return []


def require(stored: dict[str, np.ndarray], *names: str) -> None:
    """Raises InputError where a name is missing."""
    missing = [name for name in names if name not in stored]
    if missing:
        raise InputError(
            f"no array named {' or '.join(map(repr, missing))}; "
            f"found {', '.join(stored) or 'none'}"
        )
