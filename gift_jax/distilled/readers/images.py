"""Decoding of image files."""

import concurrent.futures
import itertools
import pathlib
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from gift_jax.data import image_split
from gift_jax.runtime.errors import InputError


def stack(
    sources: Sequence[tuple[object, pathlib.Path | BinaryIO]], channels: int
) -> np.ndarray:
    """Decodes images of one size.

    Args:
      sources: For each image a name for messages, and its file.
      channels: 1 for greyscale, 3 for RGB, to which images are converted.

    Returns:
      (N, H, W, channels) uint8.

    Raises:
      InputError: an image cannot be decoded, has more than 8 bits a channel, or another
        size than the first.
    """
    with concurrent.futures.ThreadPoolExecutor() as pool:
        decoded = pool.map(
            lambda source: _decode(source[0], source[1], channels), sources
        )
        first = next(decoded)
        images = np.empty((len(sources), *first.shape), np.uint8)
        for index, image in enumerate(itertools.chain([first], decoded)):
            if image.shape != first.shape:
                raise InputError(
                    f"images of mixed sizes: {sources[0][0]} has {_size(first)} "
                    f"pixels, {sources[index][0]} has {_size(image)}"
                )
            images[index] = image
    return images


def _decode(name: object, file: pathlib.Path | BinaryIO, channels: int) -> np.ndarray:
    try:
        with image_split.open_image(file, name) as image:
            pixels = np.array(image_split.convert(image, channels, name))
    except OSError as error:
        raise InputError(f"{name} is not a readable image ({error})") from error
    return pixels.reshape(*pixels.shape[:2], channels)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[0]}x{image.shape[1]}"
