"""From pixels in [0, 1] to what a network is fed, and back.

Both classes have the same two methods, which take NumPy or JAX arrays of shape
(..., H, W, C): `apply` turns pixels into network inputs and `invert` turns
network inputs into pixels. A teacher and a student may be preprocessed
differently: `teacher.apply(student.invert(inputs))` carries one to the other.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gift_jax.runtime.errors import InputError

Array = Any  # np.ndarray or jax.Array; a result is of the same kind


@dataclasses.dataclass(frozen=True)
class Normalization:
    """Channel-wise standardisation, `(pixels - mean) / std`.

    Attributes:
      mean: C floats, channel means of pixels in [0, 1].
      std: C positive floats, channel standard deviations.

    >>> norm = Normalization(mean=(0.5,), std=(0.25,))
    >>> norm.apply(np.ones((1, 1, 1))).item(), norm.invert(np.zeros((1, 1, 1))).item()
    (2.0, 0.5)
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raises InputError for lengths that differ or a `std` that is not positive."""
        object.__setattr__(self, "mean", tuple(float(m) for m in self.mean))
        object.__setattr__(self, "std", tuple(float(s) for s in self.std))
        if len(self.mean) != len(self.std):
            raise InputError(
                f"channel mean {self.mean} and std {self.std} differ in length"
            )
        if not all(s > 0 for s in self.std):
            raise InputError(f"channel std must be positive, got {self.std}")

    def apply(self, pixels: Array) -> Array:
        """Pixels in [0, 1] (..., C) -> float32 network inputs (..., C).

        Raises:
          InputError: the number of channels is not that of `mean`.
        """
        return (pixels.astype(np.float32) - _channels(self.mean, pixels)) / _channels(
            self.std, pixels
        )

    def invert(self, inputs: Array) -> Array:
        """Network inputs (..., C) -> float32 pixels (..., C).

        Raises:
          InputError: the number of channels is not that of `mean`.
        """
        return inputs.astype(np.float32) * _channels(self.std, inputs) + _channels(
            self.mean, inputs
        )


def _channels(values: Sequence[float], images: Array) -> np.ndarray:
    if images.shape[-1] != len(values):  # which broadcasting would hide
        raise InputError(
            f"images of shape {images.shape} have {images.shape[-1]} channels, but are "
            f"normalised by {len(values)}: {tuple(values)}"
        )
    return np.asarray(values, np.float32).reshape((1,) * (images.ndim - 1) + (-1,))


@dataclasses.dataclass(frozen=True, eq=False)
class Whitening:
    """ZCA: channel standardisation, then a matrix over the flattened image.

        inputs = (flatten(normalization(pixels)) - center) @ matrix

    The image is flattened in (H, W, C) order. Conventions differ between
    projects (whether pixels are standardised first, whether the mean image is
    subtracted, how the ridge is set); each reader fills these fields so that
    this one formula holds.

    Attributes:
      normalization: Channel standardisation, applied to the pixels first.
      center: (H * W * C,) float32, subtracted before the product.
      matrix: (H * W * C, H * W * C) float32.
      inverse: (H * W * C, H * W * C) float32, the inverse of `matrix`.
      length: If given, each image's own mean is subtracted before the product, and the
        image is scaled to unit length (KIP). `invert` cannot restore what that removes:
        it gives each image this length and the mean of the channels.
    """

    normalization: Normalization
    center: np.ndarray
    matrix: np.ndarray
    inverse: np.ndarray
    length: float | None = None

    def __post_init__(self) -> None:
        """Raises InputError where the shapes do not belong together."""
        dimensions = self.center.shape[0]
        for name in ("matrix", "inverse"):
            shape = getattr(self, name).shape
            if shape != (dimensions, dimensions):
                raise InputError(
                    f"ZCA {name} has shape {shape}, expected "
                    f"{(dimensions, dimensions)} as the center has {dimensions} entries"
                )

    def apply(self, pixels: Array) -> Array:
        """Pixels in [0, 1] (..., H, W, C) -> whitened inputs of that shape."""
        standardised = self.normalization.apply(pixels)
        flat = standardised.reshape(-1, self.center.size) - self.center[None]
        if self.length is not None:
            flat = _unit_length(flat)
        return _product(flat, self.matrix).reshape(pixels.shape)

    def invert(self, inputs: Array) -> Array:
        """Whitened inputs (..., H, W, C) -> pixels of that shape."""
        flat = inputs.astype(np.float32).reshape(-1, self.center.size)
        standardised = _product(flat, self.inverse) + self.center[None]
        if self.length is not None:
            standardised = _unit_length(standardised) * np.float32(self.length)
        return self.normalization.invert(standardised.reshape(inputs.shape))


def _unit_length(rows: Array) -> Array:
    """Rows minus their mean, scaled to length 1; constant rows become 0."""
    rows = rows - rows.mean(axis=1, keepdims=True)
    squares = (rows**2).sum(axis=1, keepdims=True)
    return rows / (squares + 1e-12) ** 0.5


def _product(rows: Array, matrix: np.ndarray) -> Array:
    """Product in true float32 on every device: TPUs' default and TF32 lose 1%."""
    if isinstance(rows, jax.Array):
        return jnp.matmul(rows, matrix, precision=jax.lax.Precision.HIGHEST)
    return rows @ matrix


Preprocess = Normalization | Whitening
