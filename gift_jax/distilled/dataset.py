"""The distilled dataset: what it holds, how it is checked, how it is stored."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from typing import Any

import numpy as np

from gift_jax.data import preprocess
from gift_jax.distilled import preview
from gift_jax.runtime.errors import InputError

ARRAYS_FILE = "distilled.npz"
METADATA_FILE = "distilled.json"
PREVIEW_FILE = "preview.png"

# Learnt pixels may stick out of [0, 1] (CIM's writer does not clamp); what lies
# further out is not in pixel units.
PIXEL_RANGE = (-1.0, 2.0)


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What is known of a distilled dataset besides its arrays.

    Attributes:
      dataset: Name of the real dataset, such as "cifar10".
      num_classes: C.
      method: Distillation method, such as "rded" or "random".
      source: Where the data came from: a file, or the recipe it was made with.
      hard_labels: How the hard labels were obtained: "class" (given with the
        images) or "argmax" (of the stored soft labels).
      learning_rate: The learning rate that was distilled with the images, if any.
    """

    dataset: str
    num_classes: int
    method: str
    source: str
    hard_labels: str = "class"
    learning_rate: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class DistilledDataset:
    """A distilled dataset, checked when it is made.

    Attributes:
      images: (N, H, W, C) float32 pixels, nominally in [0, 1], before
        normalisation; where `preprocess` is a `Whitening` they are whitened
        network inputs instead, of any range.
      labels: (N,) int32 classes in [0, num_classes).
      metadata: See `Metadata`.
      preprocess: What real images must pass to be what a student is fed.
      soft_labels: (N, num_classes) float32 stored labels, or None. Raw logits
        or regression targets as their authors stored them.

    Raises:
      TypeError: labels that are not integers.
      InputError: arrays whose shapes or values do not fit; the message names
        the array, the value found and what was expected.
    """

    images: np.ndarray
    labels: np.ndarray
    metadata: Metadata
    preprocess: preprocess.Preprocess
    soft_labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Checks all arrays and brings them to their dtypes."""
        if not np.issubdtype(self.labels.dtype, np.integer):
            raise InputError(
                f"hard labels must be integers, got dtype {self.labels.dtype}; soft "
                "labels belong into soft_labels"
            )
        _check_images(self.images, whitened=self.is_whitened)
        _check_labels(self.labels, len(self.images), self.metadata.num_classes)
        if self.soft_labels is not None:
            _check_soft_labels(
                self.soft_labels, len(self.images), self.metadata.num_classes
            )
            soft_labels = np.ascontiguousarray(self.soft_labels, np.float32)
            object.__setattr__(self, "soft_labels", soft_labels)
        images = np.ascontiguousarray(self.images, np.float32)
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", self.labels.astype(np.int32))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def is_whitened(self) -> bool:
        """Whether `images` are ZCA-whitened inputs rather than pixels."""
        return isinstance(self.preprocess, preprocess.Whitening)

    @property
    def ipc(self) -> int:
        """Images per class; the largest count where classes differ."""
        return int(np.bincount(self.labels).max())

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that stand for images, labels and preprocessing."""
        parts = {
            "images": self.images,
            "labels": self.labels,
            "soft_labels": self.soft_labels,
            **dataclasses.asdict(self.preprocess),
        }
        digest = hashlib.sha256()
        for name, part in parts.items():
            if isinstance(part, np.ndarray):
                digest.update(f"{name} {part.dtype} {part.shape}\n".encode())
                digest.update(np.ascontiguousarray(part).data)
            else:
                digest.update(f"{name} {part}\n".encode())
        return digest.hexdigest()[:16]

    def inputs(self) -> np.ndarray:
        """What a student is fed before augmentation: (N, H, W, C) float32."""
        return self.images if self.is_whitened else self.preprocess.apply(self.images)

    def pixels(self) -> np.ndarray:
        """The images as pixels, un-whitened where needed: (N, H, W, C) float32."""
        return self.preprocess.invert(self.images) if self.is_whitened else self.images


def _check_images(images: np.ndarray, *, whitened: bool) -> None:
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or not len(images):
        raise InputError(
            f"distilled images have shape {images.shape}, expected (N, H, W, C) with "
            "N > 0 and C = 1 or 3 (channels last)"
        )
    if not np.issubdtype(images.dtype, np.floating):
        raise InputError(
            f"distilled images have dtype {images.dtype}, expected floats; divide "
            "uint8 pixels by 255"
        )
    if not np.isfinite(images).all():
        index = int(np.argwhere(~np.isfinite(images))[0, 0])
        raise InputError(f"distilled image {index} holds NaN or infinity")
    low, high = float(images.min()), float(images.max())
    if not whitened and (low < PIXEL_RANGE[0] or high > PIXEL_RANGE[1]):
        raise InputError(
            f"distilled pixels range over [{low:.3g}, {high:.3g}], expected [0, 1] "
            "with little overshoot: undo the normalisation, divide by 255, or give "
            "the ZCA transform the images are whitened with"
        )


def _check_labels(labels: np.ndarray, num_images: int, num_classes: int) -> None:
    if labels.shape != (num_images,):
        raise InputError(
            f"hard labels have shape {labels.shape}, expected ({num_images},) for "
            f"{num_images} images"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(
            f"hard labels range over [{labels.min()}, {labels.max()}], expected "
            f"[0, {num_classes - 1}] for {num_classes} classes"
        )


def _check_soft_labels(
    soft_labels: np.ndarray, num_images: int, num_classes: int
) -> None:
    if soft_labels.shape != (num_images, num_classes):
        raise InputError(
            f"soft labels have shape {soft_labels.shape}, expected "
            f"({num_images}, {num_classes}) for {num_images} images of "
            f"{num_classes} classes"
        )
    if not np.isfinite(soft_labels).all():
        row = int(np.argwhere(~np.isfinite(soft_labels))[0, 0])
        raise InputError(f"the soft label of image {row} holds NaN or infinity")


def save_distilled(dataset: DistilledDataset, directory: pathlib.Path) -> None:
    """Writes `distilled.npz`, `distilled.json` and `preview.png` to a directory.

    Images that came from 8-bit pixels are stored as uint8, which is exact.
    """
    directory.mkdir(parents=True, exist_ok=True)
    pixels = as_uint8(dataset.images)
    arrays: dict[str, Any] = {
        "images": dataset.images if pixels is None else pixels,
        "labels": dataset.labels,
    }
    if dataset.soft_labels is not None:
        arrays["soft_labels"] = dataset.soft_labels
    normalization = dataset.preprocess
    if isinstance(normalization, preprocess.Whitening):
        arrays["zca_center"] = normalization.center
        arrays["zca_matrix"] = normalization.matrix
        arrays["zca_inverse"] = normalization.inverse
        normalization = normalization.normalization
    np.savez_compressed(directory / ARRAYS_FILE, **arrays)
    record = {
        **dataclasses.asdict(dataset.metadata),
        "mean": normalization.mean,
        "std": normalization.std,
        "zca": dataset.is_whitened,
        "ipc": dataset.ipc,
        "image_shape": dataset.images.shape[1:],
    }
    (directory / METADATA_FILE).write_text(json.dumps(record, indent=2) + "\n")
    preview.save_preview(dataset.pixels(), dataset.labels, directory / PREVIEW_FILE)


def load_distilled(directory: pathlib.Path) -> DistilledDataset:
    """Reads what `save_distilled` wrote.

    Raises:
      FileNotFoundError: a file is missing.
      InputError: a file is damaged or its arrays do not fit together.
    """
    arrays = read_npz(directory / ARRAYS_FILE)
    path = directory / METADATA_FILE
    try:
        record = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(record, dict):
        raise InputError(
            f"{path} holds a JSON {type(record).__name__}, expected an object with the "
            "fields that save_distilled writes"
        )
    try:
        return _from_record(arrays, record)
    except KeyError as error:
        raise InputError(
            f"{directory} lacks {error}, which save_distilled writes; make it anew"
        ) from error


def _from_record(
    arrays: dict[str, np.ndarray], record: dict[str, Any]
) -> DistilledDataset:
    images = arrays["images"]
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / 255
    normalization = preprocess.Normalization(record["mean"], record["std"])
    transform: preprocess.Preprocess = normalization
    if record["zca"]:
        transform = preprocess.Whitening(
            normalization=normalization,
            center=arrays["zca_center"],
            matrix=arrays["zca_matrix"],
            inverse=arrays["zca_inverse"],
        )
    fields = [field.name for field in dataclasses.fields(Metadata)]
    return DistilledDataset(
        images=images,
        labels=arrays["labels"],
        soft_labels=arrays.get("soft_labels"),
        preprocess=transform,
        metadata=Metadata(**{name: record[name] for name in fields}),
    )


def as_uint8(images: np.ndarray) -> np.ndarray | None:
    """The 8-bit pixels that float images in [0, 1] came from, or None.

    Returns:
      uint8 of the same shape for which `uint8 / 255` in float32 gives `images`
      exactly, or None where there are none such.
    """
    if images.min() < 0 or images.max() > 1:
        return None
    pixels = np.rint(images * 255).astype(np.uint8)
    exact = np.array_equal(pixels.astype(np.float32) / 255, images)
    return pixels if exact else None


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All arrays of an npz file; pickled objects are refused.

    Raises:
      FileNotFoundError: there is no such file.
      InputError: the file is a directory, truncated, not an npz, or holds pickled
        objects.
    """
    import zipfile
    import zlib

    if path.is_dir():
        raise InputError(f"{path} is a directory, expected an npz file")
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    # NumPy raises TypeError where an .npy has the name of an npz, and zipfile
    # NotImplementedError where damage reads as an unknown compression.
    damages = (
        zipfile.BadZipFile, zlib.error, EOFError, ValueError, AttributeError,
        TypeError, NotImplementedError,
    )  # fmt: skip
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except damages as error:
        raise InputError(
            f"{path} is not a readable npz file ({error}); it may be truncated or hold "
            "pickled objects: copy or download it again"
        ) from error
