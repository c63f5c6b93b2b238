"""The distilled dataset: what it holds, and how that is checked."""

import dataclasses
import functools
import io
import math
import typing
from collections.abc import Sequence

import ml_dtypes
import numpy as np

from gift_jax.data import fingerprint, preprocess
from gift_jax.distilled import preview
from gift_jax.distilled import value_space as value_space_lib
from gift_jax.runtime.errors import InputError

_IMAGES_AT_ONCE = 1000


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What is known of a distilled dataset besides its arrays.

    Attributes:
      dataset: Name of the real dataset, such as "cifar10".
      num_classes: Number of classes, C.
      method: Distillation method, such as "rded" or "random".
      source: Where the data came from: a file, or the recipe it was made with.
      hard_labels: How the hard labels were obtained: "class" (given with the
        images) or "argmax" (of the stored soft labels).
      learning_rate: The learning rate that was distilled with the images, if any.
      parts: Images that were stored as one mosaic (IDC's factor squared).
    """

    dataset: str
    num_classes: int
    method: str
    source: str
    hard_labels: str = "class"
    learning_rate: float | None = None
    parts: int = 1

    def __post_init__(self) -> None:
        """Raises InputError for a wrong type, an infinite or NaN rate, or no parts."""
        for name, kind in typing.get_type_hints(Metadata).items():
            if not isinstance(getattr(self, name), kind):
                raise InputError(f"{name} is {getattr(self, name)!r}, expected {kind}")
        if not math.isfinite(self.learning_rate or 0):
            raise InputError(f"the learnt learning rate is {self.learning_rate}")
        if self.parts < 1:
            raise InputError(f"parts is {self.parts}, expected at least 1")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class DistilledDataset:
    """A distilled dataset, checked when it is made.

    Attributes:
      images: (N, H, W, C) float32 pixels, nominally in [0, 1], before
        normalisation; where `preprocess` is a `Whitening` they are whitened
        network inputs instead, of any range.
      labels: (N,) int32 classes in [0, num_classes).
      metadata: See `Metadata`.
      preprocess: Turns pixels of real images into what a student is fed.
      soft_labels: (N, num_classes) float32 stored labels, or None. Raw logits
        or regression targets as their authors stored them.
      are_pixels: Whether the images are known to be pixels, as far out of [0, 1] as
        they may be. Otherwise their values must look like pixels.

    Raises:
      InputError: arrays whose shapes or values do not fit; the message names
        the array, the value found and what was expected.

    >>> DistilledDataset(
    ...     images=np.zeros((20, 8, 8, 1), np.float32),
    ...     labels=np.arange(20) % 10,
    ...     metadata=Metadata("mine", 10, method="by_hand", source="here"),
    ...     preprocess=preprocess.Normalization(mean=(0.3,), std=(0.4,)),
    ... )
    DistilledDataset(by_hand of mine: 20 images of shape (8, 8, 1), 10 classes, IPC 2)
    """

    images: np.ndarray
    labels: np.ndarray
    metadata: Metadata
    preprocess: preprocess.Preprocess
    soft_labels: np.ndarray | None = None
    are_pixels: dataclasses.InitVar[bool] = False

    def __post_init__(self, are_pixels: bool) -> None:
        """Checks all arrays and brings them to their dtypes."""
        if not np.issubdtype(self.labels.dtype, np.integer):
            raise InputError(
                f"hard labels must be integers, got dtype {self.labels.dtype}; soft "
                "labels belong into soft_labels"
            )
        is_known = self.is_whitened or are_pixels
        images = _checked_images(self.images, is_known=is_known)
        object.__setattr__(self, "images", images)
        _check_labels(self.labels, len(images), self.metadata.num_classes)
        object.__setattr__(self, "labels", self.labels.astype(np.int32))
        if self.soft_labels is not None:
            soft_labels = _checked_soft_labels(
                self.soft_labels, len(images), self.metadata.num_classes
            )
            object.__setattr__(self, "soft_labels", soft_labels)
        _check_preprocess(self.preprocess, images.shape[1:])

    def __len__(self) -> int:
        return len(self.images)

    @property
    def is_whitened(self) -> bool:
        """Whether `images` are ZCA-whitened inputs rather than pixels."""
        return isinstance(self.preprocess, preprocess.Whitening)

    @property
    def ipc(self) -> int:
        """Stored images per class; one may be a mosaic of several here (`parts`).

        The largest count where classes differ.
        """
        most = np.unique(self.labels, return_counts=True)[1].max()
        return int(most) // self.metadata.parts

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that stand for images, labels and preprocessing."""
        fields = dataclasses.fields(self.preprocess)
        parts = [getattr(self.preprocess, field.name) for field in fields]
        parts = [part for part in parts if part is not None]
        return fingerprint.of(self.images, self.labels, self.soft_labels, *parts)

    def __repr__(self) -> str:
        about, soft = self.metadata, self.soft_labels is not None
        return (
            f"DistilledDataset({about.method} of {about.dataset}: {len(self)} images "
            f"of shape {self.images.shape[1:]}, {about.num_classes} classes, "
            f"IPC {self.ipc}{', whitened' * self.is_whitened}"
            f"{', with soft labels' * soft})"
        )

    def _repr_png_(self) -> bytes:
        """The images as a notebook shows them: a row per class."""
        picture = io.BytesIO()
        preview.save_preview(self.pixels(), self.labels, picture)
        return picture.getvalue()

    def of_classes(
        self, kept: Sequence[int], order: Sequence[int] | None = None
    ) -> "DistilledDataset":
        """The images of some classes, one class after the other.

        Args:
          kept: Classes whose images are kept, each once.
          order: Classes that the soft labels cover, and whose places are the new hard
            labels; by default `kept`.
        """
        order = kept if order is None else order
        rows = np.concatenate([np.flatnonzero(self.labels == c) for c in kept])
        places = np.full(self.metadata.num_classes, -1)
        places[list(order)] = np.arange(len(order))
        soft_labels = self.soft_labels
        return DistilledDataset(
            images=self.images[rows],
            labels=places[self.labels[rows]],
            metadata=dataclasses.replace(self.metadata, num_classes=len(order)),
            preprocess=self.preprocess,
            soft_labels=None if soft_labels is None else soft_labels[rows][:, order],
            are_pixels=True,
        )

    def inputs(self) -> np.ndarray:
        """What a student is fed before augmentation: (N, H, W, C) float32."""
        return self.images if self.is_whitened else self.preprocess.apply(self.images)

    def pixels(self) -> np.ndarray:
        """The images as pixels, un-whitened where needed: (N, H, W, C) float32."""
        return self.preprocess.invert(self.images) if self.is_whitened else self.images


def _checked_images(images: np.ndarray, *, is_known: bool) -> np.ndarray:
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or not images.size:
        raise InputError(
            f"distilled images have shape {images.shape}, expected (N, H, W, C) with "
            "N > 0 and C = 1 or 3 (channels last)"
        )
    if not is_float(images):
        raise InputError(
            f"distilled images have dtype {images.dtype}, expected floats; divide "
            "uint8 pixels by 255"
        )
    images = _finite(images, "distilled image")
    if not is_known:
        require_pixels(images)
    return images


def is_float(array: np.ndarray) -> bool:
    """Whether an array holds floats; to NumPy alone bfloat16 is no float."""
    return array.dtype.kind == "f" or array.dtype == ml_dtypes.bfloat16


def require_pixels(images: np.ndarray) -> None:
    """Raises InputError where float32 images do not look like pixels.

    Learnt pixels may lie outside [0, 1]: few writers clamp them.
    """
    space = value_space_lib.value_space(images)
    if space != value_space_lib.PIXELS:
        low, high = np.percentile(images[:256], (1, 99))
        raise InputError(
            f"98% of the images' values lie in [{low:.3g}, {high:.3g}], their mean is "
            f"{images[:256].mean():.3g}, expected pixels in [0, 1] with little "
            f"overshoot; they look {_LOOKS.get(space, 'like values in ' + space)}"
        )


_LOOKS = {
    value_space_lib.STANDARDISED: "standardised: undo it with the mean and standard "
    "deviation of their channels (other statistics than those known?)",
    value_space_lib.WHITENED: "ZCA-whitened: give the transform, or a format that has "
    "one",
    "mean-subtracted": "mean-subtracted: add the mean",
}


def _finite(values: np.ndarray, what: str) -> np.ndarray:
    """Values as float32; raises InputError where one is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.ascontiguousarray(values, np.float32)
    for start in range(0, len(values), _IMAGES_AT_ONCE):  # a mask of all is as large
        is_finite = np.isfinite(values[start : start + _IMAGES_AT_ONCE])
        if not is_finite.all():
            index = start + int(np.argwhere(~is_finite)[0, 0])
            raise InputError(f"{what} {index} holds NaN or infinity")
    return values


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


def _checked_soft_labels(
    soft_labels: np.ndarray, num_images: int, num_classes: int
) -> np.ndarray:
    if soft_labels.shape != (num_images, num_classes):
        raise InputError(
            f"soft labels have shape {soft_labels.shape}, expected "
            f"({num_images}, {num_classes}) for {num_images} images of "
            f"{num_classes} classes"
        )
    if soft_labels.dtype.kind not in "iuf":
        raise InputError(f"soft labels have dtype {soft_labels.dtype}, expected floats")
    return _finite(soft_labels, "the soft label of image")


def _check_preprocess(transform: preprocess.Preprocess, shape: tuple[int, ...]) -> None:
    if isinstance(transform, preprocess.Whitening):
        for name in ("center", "matrix", "inverse"):
            _finite(getattr(transform, name), f"row of the ZCA {name}")
        if transform.center.size != math.prod(shape):
            raise InputError(
                f"the ZCA center has {transform.center.size} entries, expected "
                f"{math.prod(shape)} for images of shape {shape}"
            )
        transform = transform.normalization
    statistics = (*transform.mean, *transform.std)
    if len(statistics) != 2 * shape[-1] or not np.isfinite(statistics).all():
        raise InputError(
            f"channel mean {transform.mean} and std {transform.std}, expected "
            f"{shape[-1]} numbers each"
        )


def from_uint8(pixels: np.ndarray) -> np.ndarray:
    """8-bit pixels as float32 in [0, 1], of the same shape."""
    return np.divide(pixels, np.float32(255), dtype=np.float32)


def as_uint8(images: np.ndarray) -> np.ndarray | None:
    """The 8-bit pixels that float images in [0, 1] came from, or None.

    Returns:
      uint8 of the same shape for which `uint8 / 255` in float32 gives `images`
      exactly, or None where there are no such pixels.
    """
    pixels = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), _IMAGES_AT_ONCE):  # a chunk is copied as floats
        some = images[start : start + _IMAGES_AT_ONCE]
        if some.min() < 0 or some.max() > 1:
            return None
        found = np.rint(some * 255).astype(np.uint8)
        if not np.array_equal(from_uint8(found), some):
            return None
        pixels[start : start + len(some)] = found
    return pixels
