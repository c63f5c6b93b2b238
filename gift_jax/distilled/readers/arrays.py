"""From the arrays of a file to a checked `DistilledDataset`."""

import pathlib
import zipfile
from typing import Any

import numpy as np

from gift_jax.data import info, preprocess
from gift_jax.distilled.dataset import DistilledDataset, Metadata, from_uint8
from gift_jax.distilled.readers import request as request_lib
from gift_jax.runtime.errors import InputError

# Images that were whitened in the convention that they are un-whitened in look like
# pixels again; those of RFAD have percentiles of -0.7 and 1.8. In a wrong convention
# they miss [0, 1] by far: plain pixels end near 4.
_UNWHITENED_RANGE = (-2.0, 3.0)


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
    order, and learn the labels. The class is that of the start where most labels
    still say so, and what the label says where the order is another one.

    Args:
      soft_labels: (N, C) float.

    Returns:
      (N,) int32 and how they were obtained, see `Metadata.hard_labels`: "class" for
      the order of classes, or "argmax".

    Raises:
      InputError: `soft_labels` has not two axes.
    """
    if soft_labels.ndim != 2:
        raise InputError(f"soft labels have shape {soft_labels.shape}, expected (N, C)")
    num_images, num_classes = soft_labels.shape
    argmax = soft_labels.argmax(axis=1).astype(np.int32)
    if num_images % num_classes == 0:
        in_order = np.arange(num_classes, dtype=np.int32)
        in_order = in_order.repeat(num_images // num_classes)
        if np.mean(argmax == in_order) > 0.5:
            return in_order, "class"
    return argmax, "argmax"


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
    if images.dtype == np.uint8:
        images = from_uint8(images)
    return _dataset(
        request, info, images, labels, info.normalization, soft_labels, metadata
    )


def standardised_dataset(
    request: request_lib.Request,
    info: info.DatasetInfo,
    images: np.ndarray,
    soft_labels: np.ndarray,
    **metadata: Any,
) -> DistilledDataset:
    """A dataset of inputs that were standardised, which is undone, with learnt labels.

    Args:
      request: What was asked for.
      info: The real dataset, whose channel statistics were used.
      images: (N, H, W, C) float, standardised.
      soft_labels: (N, num_classes) float.
      **metadata: Fields of `Metadata`.
    """
    labels, origin = hard_labels(soft_labels)
    pixels = info.normalization.invert(images)
    metadata = {"hard_labels": origin, **metadata}
    return pixel_dataset(request, info, pixels, labels, soft_labels, **metadata)


def whitened_dataset(
    request: request_lib.Request,
    info: info.DatasetInfo,
    images: np.ndarray,
    soft_labels: np.ndarray,
    whitening: preprocess.Whitening,
    **metadata: Any,
) -> DistilledDataset:
    """A dataset of whitened inputs with learnt labels.

    Args:
      request: What was asked for.
      info: The real dataset.
      images: (N, H, W, C) float, whitened.
      soft_labels: (N, num_classes) float.
      whitening: What they are whitened with.
      **metadata: Fields of `Metadata`.

    Raises:
      InputError: the images were not whitened like that.
    """
    low, high = np.percentile(whitening.invert(images), (1, 99))
    if low < _UNWHITENED_RANGE[0] or high > _UNWHITENED_RANGE[1]:
        raise InputError(
            f"un-whitened, 98% of the pixels range over [{low:.3g}, {high:.3g}], "
            f"expected less than {list(_UNWHITENED_RANGE)}: the images are not "
            "whitened, or in another convention, or were made from another dataset "
            f"than {info.name}"
        )
    labels, origin = hard_labels(soft_labels)
    metadata = {"hard_labels": origin, **metadata}
    return _dataset(request, info, images, labels, whitening, soft_labels, metadata)


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
    """Names of the arrays in an npz file; empty where the path is none."""
    if not (path.is_file() and zipfile.is_zipfile(path)):
        return set()
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # damaged bytes raise a dozen different types
        return set()
    return {name.removesuffix(".npy") for name in names if name.endswith(".npy")}


def require(stored: dict[str, np.ndarray], *names: str) -> None:
    """Raises InputError where a name is missing."""
    missing = [name for name in names if name not in stored]
    if missing:
        raise InputError(
            f"no array named {' or '.join(map(repr, missing))}; "
            f"found {', '.join(stored) or 'none'}"
        )
