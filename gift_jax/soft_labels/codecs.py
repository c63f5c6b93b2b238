"""How logits are stored: as float16, as 8-bit codes, or the k largest of a row.

A loss on the cosine between logits sees all classes, so what a codec drops is filled in
on reading: top-k rows carry the mean of their other logits. Published stores that keep
the k largest (LPQLD, with 10, 50 or 100 of 1,000) spread the rest evenly too, as
probabilities.
"""

import dataclasses
import re
from typing import ClassVar, Protocol

import numpy as np

from gift_jax import registry
from gift_jax.runtime.errors import InputError

_LARGEST = float(np.finfo(np.float16).max)
_LAST_CODE = 255
_HALF_BYTES = 2


class UnstorableLogitError(InputError):
    """A logit is NaN, infinite or too large for float16.

    Attributes:
      row: Row of the logit.
      column: Its class.
      value: The logit.
    """

    def __init__(self, row: int, column: int, value: float) -> None:
        super().__init__(
            f"the logit of row {row} and class {column} is {value}, which float16 "
            "cannot store"
        )
        self.row, self.column, self.value = row, column, value


class LabelCodec(Protocol):
    """Encodes rows of logits as rows of stored values, and decodes them.

    A row of which every byte is 255 decodes to NaN, and no row that was encoded does.
    """

    @property
    def name(self) -> str:
        """Name of the format, as in `relabel.format`."""

    @property
    def dtype(self) -> np.dtype:
        """Data type of what is stored."""

    def row_bytes(self, num_classes: int) -> int:
        """Bytes that the logits of one image take.

        Raises:
          InputError: logits of so many classes cannot be stored.
        """

    def encode(self, logits: np.ndarray) -> np.ndarray:
        """Encodes logits as they are stored.

        Args:
          logits: (rows, C) float.

        Returns:
          (rows, row_bytes(C) / dtype.itemsize) of `dtype`.

        Raises:
          UnstorableLogitError: a logit is NaN, infinite or too large for float16.
          InputError: as for `row_bytes`.
        """

    def decode(self, stored: np.ndarray, num_classes: int) -> np.ndarray:
        """The (rows, C) float16 logits of what `encode` made."""


@dataclasses.dataclass(frozen=True)
class Float16Codec:
    """Every logit, rounded to float16: the relative error is 2^-11 at most."""

    name: ClassVar[str] = "float16"
    dtype: ClassVar[np.dtype] = np.dtype("<f2")

    def row_bytes(self, num_classes: int) -> int:
        """Bytes that the logits of one image take."""
        return _HALF_BYTES * num_classes

    def encode(self, logits: np.ndarray) -> np.ndarray:
        """(rows, C) float16."""
        logits = np.asarray(logits)
        with np.errstate(over="ignore"):
            rounded = logits.astype(self.dtype)
        finite = np.isfinite(rounded)
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            raise UnstorableLogitError(
                int(row), int(column), float(logits[row, column])
            )
        return rounded

    def decode(self, stored: np.ndarray, num_classes: int) -> np.ndarray:
        """The stored values, unchanged."""
        return stored


FLOAT16 = Float16Codec()


@dataclasses.dataclass(frozen=True)
class Int8Codec:
    """An 8-bit code of every logit, and a float16 offset and step of every row.

    A logit is offset + step * code. The step is a 255th of the row's range, rounded
    up, and both logits and what is read are rounded to float16: where no logit is
    larger than the range, the error is a 340th of the range at most. For normal
    logits it is a 400th at most and a 900th in the root mean square.
    """

    name: ClassVar[str] = "int8"
    dtype: ClassVar[np.dtype] = np.dtype(np.uint8)

    def row_bytes(self, num_classes: int) -> int:
        """Bytes that the logits of one image take."""
        return num_classes + 2 * _HALF_BYTES

    def encode(self, logits: np.ndarray) -> np.ndarray:
        """(rows, C + 4) uint8: codes, offset, step."""
        codes = FLOAT16.encode(logits).astype(np.float32)
        offset = codes.min(axis=1, keepdims=True)
        step = _rounded_up((codes.max(axis=1, keepdims=True) - offset) / _LAST_CODE)
        codes -= offset
        codes /= np.where(step > 0, step, 1).astype(np.float32)
        codes = np.rint(codes, out=codes).astype(np.uint8)
        return np.concatenate([codes, _as_bytes(offset), _as_bytes(step)], axis=1)

    def decode(self, stored: np.ndarray, num_classes: int) -> np.ndarray:
        """(rows, C) float16."""
        offset, step = np.split(_as_float16(stored[:, num_classes:]), 2, axis=1)
        logits = stored[:, :num_classes] * step.astype(np.float32)
        logits += offset
        # A step that was rounded up may lead beyond the largest float16.
        return np.clip(logits, -_LARGEST, _LARGEST, out=logits).astype(np.float16)


@dataclasses.dataclass(frozen=True)
class TopKCodec:
    """The k largest logits of every row as float16, and the mean of the others.

    Attributes:
      k: Number of logits kept per row.
    """

    k: int

    dtype: ClassVar[np.dtype] = np.dtype(np.uint8)

    @property
    def name(self) -> str:
        """Such as "top10"."""
        return f"top{self.k}"

    def row_bytes(self, num_classes: int) -> int:
        """Bytes that the logits of one image take.

        Raises:
          InputError: there are fewer than k classes, or more than 65,536.
        """
        if not self.k <= num_classes <= 2**16:
            raise InputError(
                f"label format {self.name!r} is for {self.k} to {2**16} classes, but "
                f"there are {num_classes}: set relabel.format to a smaller k, or to "
                "float16 or int8"
            )
        return (2 * self.k + 1) * _HALF_BYTES

    def encode(self, logits: np.ndarray) -> np.ndarray:
        """(rows, 4 k + 2) uint8: values, classes, mean of the others."""
        rounded = FLOAT16.encode(logits)
        num_classes = rounded.shape[1]
        self.row_bytes(num_classes)
        others = rounded.astype(np.float32)
        ranked = np.argpartition(others, num_classes - self.k, axis=1)
        classes = np.sort(ranked[:, num_classes - self.k :], axis=1)
        np.put_along_axis(others, classes, 0, axis=1)
        total = others.sum(axis=1, keepdims=True, dtype=np.float64)
        mean = total / max(1, num_classes - self.k)
        kept = np.take_along_axis(rounded, classes, axis=1)
        return np.concatenate(
            [_as_bytes(kept), _as_bytes(classes, np.uint16), _as_bytes(mean)], axis=1
        )

    def decode(self, stored: np.ndarray, num_classes: int) -> np.ndarray:
        """(rows, C) float16."""
        values, classes, mean = np.split(
            stored, [self.k * _HALF_BYTES, 2 * self.k * _HALF_BYTES], axis=1
        )
        logits = np.repeat(_as_float16(mean), num_classes, axis=1)
        # Rows that were never written name a class that may not exist.
        valid = np.minimum(classes.view("<u2"), num_classes - 1)
        np.put_along_axis(logits, valid.astype(np.intp), _as_float16(values), axis=1)
        return logits


def get_codec(name: str) -> LabelCodec:
    """The codec of a value of `relabel.format`.

    Args:
      name: "float16", "int8", or "topK" such as "top10".

    Raises:
      UnknownNameError: there is none of that name.

    >>> get_codec("top10").row_bytes(num_classes=1000)
    42
    """
    kept = re.fullmatch(r"top([1-9]\d*)", name)
    if kept:
        return TopKCodec(int(kept[1]))
    plain: dict[str, LabelCodec] = {c.name: c for c in (FLOAT16, Int8Codec())}
    if name not in plain:
        raise registry.unknown_name(
            "relabel.format", name, plain, or_else=", or topK as top10"
        )
    return plain[name]


def encode(
    codec: LabelCodec, logits: np.ndarray, *, view: int, start: int = 0
) -> np.ndarray:
    """Encodes the logits of some images of a view.

    Args:
      codec: How they are stored.
      logits: (rows, C) float.
      view: View number, for the error.
      start: Image number of the first row, for the error.

    Raises:
      InputError: a logit is NaN, infinite or too large.
    """
    try:
        return codec.encode(np.asarray(logits))
    except UnstorableLogitError as error:
        raise InputError(
            f"teacher logits of view {view} hold {error.value} (image "
            f"{start + error.row}, class {error.column}), which float16 cannot store: "
            "the teacher is broken or diverged; check its accuracy and its weights"
        ) from error


def stored_bytes(
    codec: LabelCodec, *, views: int, num_images: int, num_classes: int
) -> int:
    """Bytes of all the soft labels of a distilled dataset.

    Args:
      codec: How they are stored.
      views: Views of every image.
      num_images: N.
      num_classes: C.

    >>> stored_bytes(FLOAT16, views=300, num_images=10_000, num_classes=1000)
    6000000000
    """
    return views * num_images * codec.row_bytes(num_classes)


def _rounded_up(values: np.ndarray) -> np.ndarray:
    rounded = values.astype(np.float16)
    above = np.nextafter(rounded, np.float16(np.inf))
    return np.where(rounded < values, above, rounded)


def _as_bytes(values: np.ndarray, dtype: type = np.float16) -> np.ndarray:
    little_endian = np.dtype(dtype).newbyteorder("<")
    return np.ascontiguousarray(values, little_endian).view(np.uint8)


def _as_float16(stored: np.ndarray) -> np.ndarray:
    return stored.view("<f2").astype(np.float16, copy=False)
