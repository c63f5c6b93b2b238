"""Decoding of image files."""

import concurrent.futures
import contextlib
import math
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from gift_jax.data import image_split
from gift_jax.runtime import unpacking
from gift_jax.runtime.errors import InputError

Record = bytes | pathlib.Path


def stack(
    sources: Sequence[tuple[object, Record]],
    channels: int,
    *,
    max_bytes: int | None = None,
) -> np.ndarray:
    """Decodes images of one size.

    Args:
      sources: For each image a name for messages, and its file.
      channels: 1 for greyscale, 3 for RGB, to which images are converted.
      max_bytes: Bytes that they may unpack to; by default a multiple of their size.

    Returns:
      (N, H, W, channels) uint8.

    Raises:
      TooLargeError: they announce more than they may unpack to.
      InputError: an image cannot be decoded, has more than 8 bits a channel, or another
        size than the first.
    """
    width, height = _size(*sources[0])
    shape = (len(sources), height, width, channels)
    stored = sum(
        len(record) if isinstance(record, bytes) else record.stat().st_size
        for _, record in sources
    )
    try:
        unpacking.require_allowed(math.prod(shape), stored, max_bytes)
    except unpacking.TooLargeError as error:
        raise unpacking.TooLargeError(
            f"{sources[0][0]}, the first of {len(sources)} of {height}x{width} pixels, "
            f"{error}"
        ) from None
    images = np.empty(shape, np.uint8)

    def decode(index: int) -> None:
        name, record = sources[index]
        found = _size(name, record)
        if found != (width, height):
            raise InputError(
                f"images of mixed sizes: {sources[0][0]} has {height}x{width} pixels, "
                f"{name} has {found[1]}x{found[0]}"
            )
        images[index] = _decode(name, record, channels)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        for _ in pool.map(decode, range(len(sources))):
            pass
    return images


def _size(name: object, record: Record) -> tuple[int, int]:
    """(width, height), without decoding; the checksums of a PNG are compared."""
    with _opened(name, record) as image:
        if image.format == "PNG":  # otherwise Pillow skips the checksums of pixels
            image.verify()
        return image.size


def _decode(name: object, record: Record, channels: int) -> np.ndarray:
    with _opened(name, record) as image:
        pixels = np.array(image_split.convert(image, channels, name))
    return pixels.reshape(*pixels.shape[:2], channels)


@contextlib.contextmanager
def _opened(name: object, record: Record) -> Iterator[Image.Image]:
    try:
        with image_split.open_image(record, name) as image:
            yield image
    except OSError as error:
        raise InputError(f"{name} is not a readable image ({error})") from error
