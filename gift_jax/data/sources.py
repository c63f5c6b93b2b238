"""Where the images of real datasets come from: arrays, files, `tfds_source`.

A collection holds named splits. A split, or source, gives encoded images, which
are decoded by whoever reads them, and labels, for which no image is decoded.
"""

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from gift_jax.data import fingerprint
from gift_jax.runtime.errors import InputError, MissingPackageError

# What an image is decoded from: the bytes or the path of an image file, or a
# (h, w, C) uint8 array.
Record = bytes | pathlib.Path | np.ndarray

_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif"}
_DIGITS_TEST_PER_CLASS = 36


class Source(Protocol):
    """Random access to the encoded images of one split."""

    def __len__(self) -> int:
        """Number of images."""

    def labels(self, indices: Sequence[int]) -> np.ndarray:
        """Integer classes of the images with these indices; decodes no image."""

    def records(self, indices: Sequence[int]) -> Sequence[Record]:
        """The encoded images with these indices."""

    @property
    def labels_are_quick(self) -> bool:
        """Whether all labels are read within seconds."""

    @property
    def is_in_memory(self) -> bool:
        """Whether it holds the images in memory, as then does every copy of it."""

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits for all images, in order, with their labels."""


class Collection(Protocol):
    """A dataset as it is stored: some splits that share their classes."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, in order."""

    def split(self, name: str) -> Source:
        """Opens a split; InputError for a name that is not among the splits."""


@dataclasses.dataclass(frozen=True, eq=False)
class RecordList:
    """A source whose images are files or arrays.

    Attributes:
      images: N paths, or an (N, h, w, C) uint8 or (N,) bytes array.
      classes: (N,) integer classes.
    """

    labels_are_quick: ClassVar[bool] = True

    images: Sequence[pathlib.Path] | np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def labels(self, indices: Sequence[int]) -> np.ndarray:
        """See `Source`."""
        return self.classes[np.asarray(indices, np.intp)]

    def records(self, indices: Sequence[int]) -> Sequence[Record]:
        """See `Source`."""
        return [self.images[index] for index in indices]

    @property
    def is_in_memory(self) -> bool:
        """See `Source`."""
        return isinstance(self.images, np.ndarray)

    @functools.cached_property
    def fingerprint(self) -> str:
        """See `Source`."""
        images = self.images
        if isinstance(images, np.ndarray):
            return fingerprint.of(images, self.classes)
        return fingerprint.of(fingerprint.of_files(images), self.classes)


@dataclasses.dataclass(frozen=True, eq=False)
class Subset:
    """Some images of another source.

    Attributes:
      source: The other source.
      indices: (N,) integer, which of its images.
    """

    source: Source
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def labels(self, indices: Sequence[int]) -> np.ndarray:
        """See `Source`."""
        return self.source.labels([int(self.indices[index]) for index in indices])

    def records(self, indices: Sequence[int]) -> Sequence[Record]:
        """See `Source`."""
        return self.source.records([int(self.indices[index]) for index in indices])

    @property
    def labels_are_quick(self) -> bool:
        """See `Source`."""
        return self.source.labels_are_quick

    @property
    def is_in_memory(self) -> bool:
        """See `Source`."""
        return self.source.is_in_memory

    @functools.cached_property
    def fingerprint(self) -> str:
        """See `Source`."""
        return fingerprint.of(self.source.fingerprint, self.indices)


@dataclasses.dataclass(frozen=True, eq=False)
class OfClasses:
    """The images of some classes of another source.

    Attributes:
      source: The other source.
      source_labels: (N,) integers, labels of the whole source; reading them takes long.
      classes: Classes to keep, each once; their places here are the new labels.
    """

    labels_are_quick: ClassVar[bool] = True

    source: Source
    source_labels: np.ndarray
    classes: tuple[int, ...]

    @functools.cached_property
    def _subset(self) -> Subset:
        kept = np.isin(self.source_labels, self.classes)
        return Subset(self.source, np.flatnonzero(kept))

    def __len__(self) -> int:
        return len(self._subset)

    def labels(self, indices: Sequence[int]) -> np.ndarray:
        """See `Source`."""
        places = np.full(max(self.classes) + 1, -1)
        places[list(self.classes)] = np.arange(len(self.classes))
        of_source = self._subset.indices[np.asarray(indices, np.int64)]
        return places[self.source_labels[of_source]]

    def records(self, indices: Sequence[int]) -> Sequence[Record]:
        """See `Source`."""
        return self._subset.records(indices)

    @property
    def is_in_memory(self) -> bool:
        """See `Source`."""
        return self.source.is_in_memory

    @functools.cached_property
    def fingerprint(self) -> str:
        """See `Source`."""
        return fingerprint.of(self.source.fingerprint, np.array(self.classes))


class Digits:
    """Scikit-learn's 1,797 handwritten digits of 8x8 pixels in 17 grey levels.

    They come without a split. Here 36 images of each class, drawn once and for
    all, are the test split (360) and the others the train split (1,437).
    """

    num_classes = 10
    classes = tuple("0123456789")

    def split(self, name: str) -> Source:
        """See `Collection`."""
        if name not in ("train", "test"):
            raise InputError(f"digits has no split {name!r}; splits: train, test")
        try:
            from sklearn import datasets
        except ImportError as error:
            raise MissingPackageError(
                "the digits dataset comes with scikit-learn, which is not installed: "
                "pip install scikit-learn"
            ) from error
        digits = datasets.load_digits()
        pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
        rng = np.random.default_rng(0)
        members = [
            rng.permutation(np.flatnonzero(digits.target == label))
            for label in range(self.num_classes)
        ]
        part = slice(_DIGITS_TEST_PER_CLASS)
        if name == "train":
            part = slice(_DIGITS_TEST_PER_CLASS, None)
        chosen = np.sort(np.concatenate([indices[part] for indices in members]))
        return RecordList(pixels[chosen], digits.target[chosen])


class Folders:
    """Class folders, `root/SPLIT/CLASS/**/*.jpg`; see `subfolders`, `image_files`.

    The order is that of torchvision's `ImageFolder`, and so that of published
    teachers, except where all classes are numbers: `10` comes after `9`. Names that
    begin with a dot are left out. A split with a `val_annotations.txt`, as in the
    official layout of Tiny-ImageNet, is read by that file. Splits other than `train`
    may lack classes.

    Args:
      root: The folder that holds the splits.
      train: The split whose folders name the classes.

    Raises:
      FileNotFoundError: there is no such folder, or no class folder in it.

    A split raises InputError for a class that is not in the train split, a class
    folder without images, and an image that is no regular file, such as a pipe.
    """

    def __init__(self, root: str | os.PathLike, train: str = "train") -> None:
        self._root = pathlib.Path(os.path.expanduser(root))
        self._train = self._root / train
        self.classes = subfolders(self._train) if self._train.is_dir() else []
        if not self.classes:
            raise FileNotFoundError(
                f"no class folders in {self._train}; expected images at "
                f"{self._train}/CLASS/*.jpg (or .png) and {self._root}/val/CLASS/, or "
                "other names in dataset.train_split and dataset.test_split"
            )

    @property
    def num_classes(self) -> int:
        """Number of class folders in the train split."""
        return len(self.classes)

    def split(self, name: str) -> Source:
        """See `Collection`; a split is a folder."""
        folder = self._root / name
        if not folder.is_dir():
            raise InputError(
                f"{self._root} has no split {name!r}; "
                f"splits: {', '.join(subfolders(self._root))}. Set dataset.test_split, "
                "or dataset.train_split, to one of them"
            )
        annotations = folder / "val_annotations.txt"
        # People who sort these images into class folders often leave the file.
        if annotations.is_file() and (folder / "images").is_dir():
            return self._annotated(folder / "images", annotations)
        paths: list[pathlib.Path] = []
        labels: list[int] = []
        for class_name in subfolders(folder):
            found = image_files(folder / class_name)
            if not found:
                raise InputError(f"class folder {folder / class_name} holds no images")
            paths += found
            labels += [self._label(class_name, folder)] * len(found)
        return RecordList(paths, np.array(labels, np.int32))

    def _annotated(self, images: pathlib.Path, annotations: pathlib.Path) -> Source:
        text = annotations.read_text(encoding="utf-8-sig", errors="replace")
        paths: list[pathlib.Path] = []
        labels: list[int] = []
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            name, class_name = [*line.split("\t"), ""][:2]
            if not (images / name).is_file():
                raise InputError(f"line {number} of {annotations}: no image {name!r}")
            paths.append(images / name)
            labels.append(self._label(class_name, annotations))
        return RecordList(paths, np.array(labels, np.int32))

    def _label(self, class_name: str, where: pathlib.Path) -> int:
        try:
            return self.classes.index(class_name)
        except ValueError:
            raise InputError(
                f"class {class_name!r} in {where} is none of the "
                f"{self.num_classes} classes in {self._train}"
            ) from None


def subfolders(folder: pathlib.Path) -> list[str]:
    """Names of the folders in a folder, sorted as numbers if all are, else as text."""
    names = [
        entry.name
        for entry in os.scandir(folder)
        if entry.is_dir() and not entry.name.startswith(".")
    ]
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def image_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The images in a folder and in those below it, in natural order: 10 after 9.

    Files with an image suffix, in any case; other files, and names that begin with a
    dot, are passed over.

    Raises:
      InputError: an image that is no regular file, such as a pipe.
    """
    root = folder.resolve()
    found, unread, seen = [], [folder], {root}
    while unread:
        for entry in os.scandir(unread.pop()):
            path = pathlib.Path(entry)
            if path.name.startswith("."):
                continue
            if entry.is_dir():
                place = path.resolve()
                if place not in seen and not root.is_relative_to(place):
                    seen.add(place)
                    unread.append(path)
            elif is_image_name(path):
                if not entry.is_file():
                    raise InputError(f"{path} is no regular file")
                found.append(path)
    return sorted(found, key=natural_key)


def is_image_name(path: pathlib.Path) -> bool:
    """Whether a file has an image's suffix and no leading dot, as tools' files have."""
    return path.suffix.lower() in _IMAGE_SUFFIXES and not path.name.startswith(".")


def natural_key(path: pathlib.Path) -> tuple[list[Any], str]:
    """Sorts the numbers in a path as numbers, and the rest as text."""
    parts = re.split(r"([0-9]+)", str(path))
    return [int(p) if i % 2 else p for i, p in enumerate(parts)], str(path)
