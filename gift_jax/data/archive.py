"""Real images in one file: a NumPy archive of splits.

MedMNIST publishes such files, and `write` makes them of any real dataset, to carry it
to a machine without TFDS.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gift_jax.data import fingerprint, sources
from gift_jax.data.image_split import ImageSplit
from gift_jax.runtime import atomic
from gift_jax.runtime.errors import InputError
from gift_jax.runtime.npz import read_npz, write_npz
from gift_jax.runtime.unpacking import TooLargeError

_IMAGES, _ENDS, _LABELS, _CLASSES = "_images", "_ends", "_labels", "classes"


@dataclasses.dataclass(frozen=True, eq=False)
class _EncodedList(sources.RecordList):
    """Encoded images one after the other; image i ends at byte `ends[i]`."""

    images: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    def records(self, indices: Sequence[int]) -> Sequence[sources.Record]:
        """See `sources.Source`."""
        starts = np.concatenate([[0], self.ends])
        return [self.images[starts[i] : self.ends[i]].tobytes() for i in indices]

    @functools.cached_property
    def fingerprint(self) -> str:
        """See `sources.Source`."""
        return fingerprint.of(self.images, self.ends, self.classes)


class Archive:
    """Splits in an npz, each of two arrays; all are held in memory.

        SPLIT_images  (N, h, w) or (N, h, w, C) uint8 pixels of one or three channels,
                      or (bytes,) uint8, encoded images one after the other
        SPLIT_ends    (N,) integers, where each encoded image ends among these bytes
        SPLIT_labels  (N,) or (N, 1) integer classes
        classes       names of the classes in order; optional

    Args:
      path: The file.

    Raises:
      FileNotFoundError: there is no such file.
      InputError: it is damaged, or holds no split.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        try:
            self._arrays = read_npz(path)
        except TooLargeError as error:
            raise InputError(
                f"{path} unpacks to more than 50 times its size, as what would fill "
                "the memory does: write it again with numpy.savez, uncompressed"
            ) from error
        if not self._splits:
            raise InputError(
                f"{path} holds {', '.join(self._arrays) or 'nothing'}, expected "
                f"arrays such as train{_IMAGES} and train{_LABELS}"
            )

    @functools.cached_property
    def _splits(self) -> list[str]:
        names = (n.removesuffix(_IMAGES) for n in self._arrays if n.endswith(_IMAGES))
        return [name for name in names if name + _LABELS in self._arrays]

    @functools.cached_property
    def num_classes(self) -> int:
        """Number of named classes, or else one more than the largest label."""
        if _CLASSES in self._arrays:
            return len(self.classes)
        return 1 + max(int(self._labels(s).max(initial=-1)) for s in self._splits)

    @functools.cached_property
    def classes(self) -> Sequence[str]:
        """Names of the classes; numbers where the file has none."""
        if _CLASSES in self._arrays:
            return [str(name) for name in self._arrays[_CLASSES].ravel()]
        return [str(number) for number in range(self.num_classes)]

    def split(self, name: str) -> sources.Source:
        """See `sources.Collection`.

        Raises:
          InputError: there is no such split, or it holds other arrays.
        """
        if name not in self._splits:
            raise InputError(
                f"{self._path} has no split {name!r}; splits: {', '.join(self._splits)}"
            )
        images, labels = self._arrays[name + _IMAGES], self._labels(name)
        ends = self._arrays.get(name + _ENDS)
        found: sources.RecordList
        if ends is not None:
            self._check_ends(name, images, ends)
            found = _EncodedList(images, labels, ends.astype(np.int64))
        else:
            found = sources.RecordList(self._pixels(name, images), labels)
        if len(found) != len(labels):
            raise InputError(
                f"{self._path} has {len(found)} images and {len(labels)} labels in "
                f"the split {name!r}"
            )
        return found

    def _pixels(self, split: str, images: np.ndarray) -> np.ndarray:
        if images.dtype == np.uint8 and images.ndim == 3:
            images = images[..., None]
        is_pixels = images.dtype == np.uint8 and images.ndim == 4
        if not (is_pixels and images.shape[-1] in (1, 3)):
            raise InputError(
                f"{split}{_IMAGES} of {self._path} has shape {images.shape} and dtype "
                f"{images.dtype}, expected (N, h, w), (N, h, w, 1) or (N, h, w, 3) "
                f"uint8, or (bytes,) uint8 beside {split}{_ENDS}"
            )
        return images

    def _check_ends(self, split: str, images: np.ndarray, ends: np.ndarray) -> None:
        is_bytes = images.dtype == np.uint8 and images.ndim == 1
        are_ends = ends.dtype.kind in "iu" and ends.ndim == 1
        if not (is_bytes and are_ends and _divide(ends, len(images))):
            raise InputError(
                f"{split}{_ENDS} of {self._path}, {ends.dtype} of shape {ends.shape}, "
                f"does not divide {split}{_IMAGES}, {images.dtype} of shape "
                f"{images.shape}, into encoded images: make the file anew"
            )

    def _labels(self, split: str) -> np.ndarray:
        labels = self._arrays[split + _LABELS]
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise InputError(
                f"{split}{_LABELS} of {self._path} has shape {labels.shape} and dtype "
                f"{labels.dtype}, expected (N,) integers: one class an image"
            )
        return labels.astype(np.int64)


def write(
    path: pathlib.Path, splits: Mapping[str, ImageSplit], classes: Sequence[str] = ()
) -> None:
    """Writes images as they are stored, encoded or as pixels, with their labels.

    Args:
      path: The .npz; it appears only when it is complete.
      splits: The splits by the names to give them in the file.
      classes: Names of the classes.

    Raises:
      InputError: the pixels of a split have more than one size.
      OSError: an image cannot be read, or the file cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, split in splits.items():
        arrays |= _images(name, split.encoded())
        arrays[name + _LABELS] = split.labels
    if classes:
        arrays[_CLASSES] = np.array(classes)
    with atomic.replacing(path) as unfinished:
        write_npz(unfinished, arrays)


def _images(split: str, records: Sequence[Any]) -> dict[str, np.ndarray]:
    if isinstance(records[0], np.ndarray):
        shapes = {record.shape for record in records}
        if len(shapes) > 1:
            raise InputError(f"images of the split {split!r} have shapes {shapes}")
        return {split + _IMAGES: np.stack(records)}
    encoded = [r.read_bytes() if isinstance(r, pathlib.Path) else r for r in records]
    return {
        split + _IMAGES: np.frombuffer(b"".join(encoded), np.uint8),
        split + _ENDS: np.cumsum([len(one) for one in encoded]),
    }


def _divide(ends: np.ndarray, size: int) -> bool:
    """Whether `ends` cut `size` bytes into pieces, none of them empty."""
    lengths = np.diff(ends.astype(np.int64), prepend=0)
    return bool(lengths.sum() == size and np.all(lengths > 0))
