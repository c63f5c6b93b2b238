"""Fingerprints of real images: by their encoded bytes, their order and their labels.

The place of the files and the time they were written do not count. Every byte counts,
up to `SAMPLED_BEYOND` bytes a split. In larger splits the size of every file counts,
and about `_SAMPLES` whole files or blocks of `_BLOCK` bytes at equal distances: another
selection, version or encoding is noticed, but not an image between two samples that was
exchanged for one of the same size.

All labels count where they are read from folders. TFDS stores labels in its files
beside the images, with records that a slice such as "train[:90%]" leaves out; there the
name, the version and the lengths of the shards count as well. Images that were encoded
again count as other images, and so do those of a set that TFDS prepared again in other
files.
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
      OSError: a file cannot be read.
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
    """Starts of all blocks of a file, or of `most` (at least one) and the last one."""
    if most is None or size <= _BLOCK:
        return range(0, size, _BLOCK)
    return np.linspace(0, size - _BLOCK, max(1, most) + 1).astype(int).tolist()
