"""Real images in one file: a NumPy archive of splits.

MedMNIST publishes such files, and `write` makes them of any real dataset, to carry it
to a machine without TFDS.
"""

import functools
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from gift_jax.data import sources
from gift_jax.data.image_split import ImageSplit
from gift_jax.runtime import atomic
from gift_jax.runtime.errors import InputError
from gift_jax.runtime.npz import read_npz

_IMAGES, _LABELS, _CLASSES = "_images", "_labels", "classes"


class Archive:
    """Splits in an npz, each of two arrays; all are held in memory.

        SPLIT_images  (N, h, w) or (N, h, w, C) uint8 pixels of one or three channels,
                      or (N,) bytes, encoded images as files hold them
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
        self._arrays = read_npz(path)
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
        """Their names; numbers where the file has none."""
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
        is_encoded = images.dtype.kind == "S" and images.ndim == 1
        if images.dtype == np.uint8 and images.ndim == 3:
            images = images[..., None]
        is_pixels = images.dtype == np.uint8 and images.ndim == 4
        if not (is_encoded or (is_pixels and images.shape[-1] in (1, 3))):
            raise InputError(
                f"{name}{_IMAGES} of {self._path} has shape {images.shape} and dtype "
                f"{images.dtype}, expected (N, h, w), (N, h, w, 1) or (N, h, w, 3) "
                "uint8, or (N,) bytes"
            )
        if len(images) != len(labels):
            raise InputError(
                f"{self._path} has {len(images)} images and {len(labels)} labels in "
                f"the split {name!r}"
            )
        return sources.RecordList(images, labels)

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
      path: The .npz; appears when it is whole.
      splits: By the names to give them.
      classes: Names of the classes.

    Raises:
      InputError: the pixels of a split have more than one size, or its encoded images
        cannot be kept in an array.
      OSError: an image cannot be read, or the file not written.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, split in splits.items():
        arrays[name + _IMAGES] = _stacked(split.encoded(), name)
        arrays[name + _LABELS] = split.labels
    if classes:
        arrays[_CLASSES] = np.array(classes)
    with atomic.replacing(path) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _stacked(records: Sequence[sources.Record], split: str) -> np.ndarray:
    encoded = [r.read_bytes() if isinstance(r, pathlib.Path) else r for r in records]
    shapes = {getattr(record, "shape", None) for record in encoded}
    if len(shapes) > 1:
        raise InputError(f"images of the split {split!r} have shapes {shapes}")
    stacked = np.array(encoded)
    # Bytes are filled up with zeros, and lose those that they end with.
    lengths = [len(record) for record in encoded]
    if stacked.dtype.kind == "S" and np.char.str_len(stacked).tolist() != lengths:
        raise InputError(f"an encoded image of the split {split!r} ends with zeros")
    return stacked
