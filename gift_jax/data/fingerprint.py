"""Fingerprints of real images: by their encoded bytes, their order and their labels.

Where the files lie, and when they were written, does not count. Every byte does, up to
`SAMPLED_BEYOND` bytes a split. Of larger splits the size of every file counts, and
about `_SAMPLES` whole files or blocks of `_BLOCK` bytes at equal distances: another
selection, version or encoding is noticed, an image is not that was exchanged for one of
the same size between two samples.

Labels count, all of them, where they are read from folders. Those of TFDS lie in its
files beside the images, with records that a slice such as "train[:90%]" leaves out;
there the name, the version and the lengths of the shards count as well. Pixels that
were encoded again are other images, and so are those of a set that TFDS prepared
again in other files.
"""

import hashlib
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

SAMPLED_BEYOND = 2**31
_SAMPLES = 1000
_BLOCK = 2**20


def of(*parts: Any) -> str:
    """16 hexadecimal digits that stand for texts, numbers and arrays, in order."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype} {part.shape}\n".encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(f"{part!r}\n".encode())
    return digest.hexdigest()[:16]


def of_files(paths: Sequence[pathlib.Path]) -> str:
    """16 hexadecimal digits for the contents of files in their order, not their names.

    Raises:
      OSError: one cannot be read.
    """
    sizes = [path.stat().st_size for path in paths]
    digest = hashlib.sha256(f"{sizes}".encode())
    is_sampled = sum(sizes) > SAMPLED_BEYOND
    step = max(1, len(paths) // _SAMPLES) if is_sampled else 1
    for path, size in zip(paths[::step], sizes[::step], strict=True):
        with path.open("rb") as file:
            for start in _starts(size, _SAMPLES // len(paths) if is_sampled else None):
                file.seek(start)
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()[:16]


def _starts(size: int, most: int | None) -> Iterable[int]:
    """Where the blocks of a file begin, or so many of them and the last one."""
    if most is None or size <= _BLOCK:
        return range(0, size, _BLOCK)
    return np.linspace(0, size - _BLOCK, max(1, most) + 1).astype(int).tolist()
