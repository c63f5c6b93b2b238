"""Random access to the images of one split, after the validation transform.

Images are decoded by a pool of threads when they are read; `all_images` keeps
those of a small split in memory.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import io
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image

from gift_jax.data import info as info_lib
from gift_jax.data import sources
from gift_jax.runtime.cores import usable_cores
from gift_jax.runtime.errors import InputError

T = TypeVar("T")
Indices = Sequence[int] | np.ndarray

# Encoded images held at a time while a pool of threads decodes them.
_CHUNK = 512
# Not all formats that Pillow knows: for some, such as EPS, it starts other programs.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF")
_IN_MEMORY = re.compile(" <_io.BytesIO object at 0x[0-9a-f]+>")  # in Pillow's errors


class ImageSplit:
    """One split of a real dataset.

    Args:
      source: Where the images come from.
      info: Size and channels to bring the images to, and the number of classes.
      name: Name of the split, for messages.

    Raises:
      InputError: the split is empty.
    """

    def __init__(
        self, source: sources.Source, info: info_lib.DatasetInfo, name: str
    ) -> None:
        self._source = source
        self._info = info
        self.name = name
        self._title = f"the {name!r} split of {info.name}"
        self._in_memory: np.ndarray | None = None
        if not len(source):
            raise InputError(f"{self._title} is empty")

    def __len__(self) -> int:
        return len(self._source)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images as they are used."""
        return self._info.image_shape

    def subset(self, indices: np.ndarray) -> "ImageSplit":
        """The images at these indices, in their order."""
        return ImageSplit(sources.Subset(self._source, indices), self._info, self.name)

    def of_classes(self, classes: tuple[int, ...]) -> "ImageSplit":
        """The images of some classes; a class's place in `classes` is its new label.

        Raises:
          InputError: there is no image of these classes, or as for `labels_of`.
        """
        info = dataclasses.replace(self._info, num_classes=len(classes))
        source = sources.OfClasses(self._source, self.labels, classes)
        return ImageSplit(source, info, self.name)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """(N,) int32 classes; read once, without decoding an image.

        Raises:
          InputError: see `labels_of`.
        """
        return self.labels_of(range(len(self)))

    @property
    def labels_are_quick(self) -> bool:
        """Whether `labels` takes seconds, not a pass over the files of all images."""
        return self._source.labels_are_quick

    @property
    def is_in_memory(self) -> bool:
        """Whether its images are held in memory, encoded or not."""
        return self._source.is_in_memory

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits for all images, in order, with their labels."""
        return self._source.fingerprint

    def encoded(self) -> Sequence[sources.Record]:
        """All images as they are stored."""
        return self._source.records(range(len(self)))

    def labels_of(self, indices: Indices) -> np.ndarray:
        """Classes of some images, without decoding them or reading any other.

        Args:
          indices: B indices in [0, N).

        Returns:
          (B,) int32 in [0, num_classes).

        Raises:
          IndexError: an index outside [0, N).
          InputError: a label outside [0, num_classes), such as the -1 of splits
            whose labels are hidden.
        """
        labels = np.asarray(self._source.labels(self._checked(indices)))
        if not len(labels):
            return labels.astype(np.int32)
        low, high = labels.min(), labels.max()
        if low < 0 or high >= self._info.num_classes:
            raise InputError(
                f"labels of {self._title} range over [{low}, {high}], expected "
                f"[0, {self._info.num_classes - 1}]"
            )
        return labels.astype(np.int32)

    def map(
        self,
        function: Callable[[int, Image.Image], T],
        indices: Indices,
        *,
        threads: int | None = None,
    ) -> Iterator[T]:
        """Applies a function to original images, in a pool of threads.

        Args:
          function: Called with an index and the decoded image, greyscale or RGB
            by the channels of the dataset; must be safe to call from threads.
          indices: Indices of the images.
          threads: Number of threads; by default one per core.

        Yields:
          The results in the order of the indices.
        """
        checked = self._checked(indices)

        def decode_and_apply(index: int, record: sources.Record) -> T:
            return function(index, self._decode(index, record))

        with concurrent.futures.ThreadPoolExecutor(threads or usable_cores()) as pool:
            for start in range(0, len(checked), _CHUNK):
                chunk = checked[start : start + _CHUNK]
                records = self._source.records(chunk)
                yield from pool.map(decode_and_apply, chunk, records)

    def read(self, index: int) -> np.ndarray:
        """The original image: (h, w, C) uint8 of any size."""
        return next(self.map(lambda _, image: _to_array(image), [index]))

    def images(self, indices: Indices, *, threads: int | None = None) -> np.ndarray:
        """Images after the validation transform.

        Args:
          indices: B indices in [0, N).
          threads: Number of threads to decode with; by default one per core.

        Returns:
          (B, S, S, C) uint8, where S is the image size of the dataset.

        Raises:
          IndexError: an index outside [0, N).
          InputError: an image of another size in a dataset that is not resized, or
            one with more than 8 bits a channel.
          OSError: an image that cannot be decoded.
        """
        if self._in_memory is not None:
            return self._in_memory[self._checked(indices)]
        side, channels = self._info.image_size, self._info.channels
        images = np.empty((len(indices), side, side, channels), np.uint8)
        transformed = self.map(self._transform, indices, threads=threads)
        for position, image in enumerate(transformed):
            images[position] = image
        return images

    def all_images(self) -> np.ndarray:
        """(N, S, S, C) uint8, kept in memory from the first call on; read-only."""
        if self._in_memory is None:
            images = self.images(range(len(self)))
            images.flags.writeable = False
            self._in_memory = images
        return self._in_memory

    def _checked(self, indices: Indices) -> list[int]:
        checked = [int(index) for index in indices]
        if checked and (min(checked) < 0 or max(checked) >= len(self)):
            raise IndexError(
                f"indices over [{min(checked)}, {max(checked)}] into the "
                f"{len(self)} images of {self._title}"
            )
        return checked

    def _decode(self, index: int, record: sources.Record) -> Image.Image:
        name = f"image {index} of {self._title}"
        with open_image(record, name) as image:
            return convert(image, self._info.channels, name)

    def _transform(self, index: int, image: Image.Image) -> np.ndarray:
        side = self._info.image_size
        if self._info.resize:
            image = resize_and_crop(image, side)
        elif image.size != (side, side):
            raise InputError(
                f"image {index} of {self._title} has {image.height}x{image.width} "
                f"pixels, expected {side}x{side}: bring all images of the dataset "
                "to one size"
            )
        return _to_array(image)


@contextlib.contextmanager
def open_image(
    record: sources.Record | BinaryIO, name: object
) -> Iterator[Image.Image]:
    """Opens an encoded image or an array; the `with` block may decode its pixels.

    Args:
      record: A JPEG, PNG, BMP, WEBP or GIF, or an array.
      name: Name of the image, for messages.

    Raises:
      OSError: it cannot be opened or decoded; the message names it, and its file.
    """
    try:
        if isinstance(record, np.ndarray):
            yield Image.fromarray(record[..., 0] if record.shape[-1] == 1 else record)
        else:
            file = io.BytesIO(record) if isinstance(record, bytes) else record
            with Image.open(file, formats=_FORMATS) as image:
                yield image
    except InputError:
        raise
    except Exception as error:  # Pillow raises anything for damaged or hostile files
        text = _IN_MEMORY.sub("", str(error)) or type(error).__name__
        if isinstance(record, pathlib.Path) and str(record) not in text:
            text = f"{record}: {text}"
        raise OSError(f"{name} cannot be decoded: {text}") from error


def convert(image: Image.Image, channels: int, name: object) -> Image.Image:
    """Decodes an image as greyscale (1 channel) or RGB (3 channels).

    Raises:
      InputError: it has more than 8 bits a channel, which Pillow would clip; the
        message begins with `name`.
    """
    if image.mode.startswith(("I", "F")):
        raise InputError(
            f"{name} has more than 8 bits a channel (Pillow mode {image.mode!r}); "
            "convert it to 8 bits"
        )
    return image.convert("L" if channels == 1 else "RGB")


def resize_and_crop(image: Image.Image, side: int) -> Image.Image:
    """Brings the shorter side to 8/7 of `side` and crops the centre.

    The validation transform of the official code (GIFT, data/utils), which is
    torchvision's `Resize` and `CenterCrop` on PIL images, bilinear: 256 and 224,
    146 and 128, 73 and 64.
    """
    shorter = side * 8 // 7
    scale = min(image.size)
    width, height = (shorter * length // scale for length in image.size)
    left, top = round((width - side) / 2), round((height - side) / 2)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + side, top + side))


def _to_array(image: Image.Image) -> np.ndarray:
    pixels = np.array(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels
