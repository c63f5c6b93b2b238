"""Parquet of the Hugging Face sets `he-yang/2025-rethinkdc-imagenet-*`.

One split `train` with columns `image` (encoded) and `class_id`, the classes in
torchvision's order. Names that are usual elsewhere on the hub are read too.
"""

import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from gift_jax.distilled.dataset import DistilledDataset
from gift_jax.distilled.readers import arrays, images
from gift_jax.distilled.readers.request import Request
from gift_jax.runtime import unpacking
from gift_jax.runtime.errors import InputError, MissingPackageError, pip_install

LOOKS_LIKE = (
    "a .parquet file, a directory with some, or the hub id "
    "he-yang/2025-rethinkdc-...; columns `image` or `img` and `class_id` or `label`"
)
_IMAGES = ("image", "img")
_LABELS = ("class_id", "label", "labels", "fine_label")
# Name of a split in a file's path below the directory that is read.
_SPLIT = re.compile(r"(?<![a-z])(train|test|validation|valid|val|dev|eval)(?![a-z])")
# Images unpacked at a time.
_ROWS = 256
_KNOWN_HUB_ID = re.compile(r"he-yang/2025-rethinkdc-[\w-]+")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def matches(path: pathlib.Path) -> bool:
    """Whether there is a parquet file, or the path is a hub id that is known."""
    return bool(_files(path)) or is_hub_id(path, _KNOWN_HUB_ID)


def is_hub_id(path: pathlib.Path, pattern: re.Pattern[str] = _HUB_ID) -> bool:
    """Whether a path that does not exist has the form of a hub id."""
    return bool(pattern.fullmatch(path.as_posix())) and not path.exists()


def read(request: Request) -> DistilledDataset:
    """Reads all rows; see `read_distilled`."""
    info = request.info()
    if request.path.exists():
        files = _files(request.path)
        if not files:
            raise InputError("there is no .parquet file")
        encoded, labels = _read_files(files, request.max_bytes)
    else:
        encoded, labels = _read_hub(request.path.as_posix())
    if not encoded:
        raise InputError("the parquet files hold no rows")
    rows = [(f"row {row}", data) for row, data in enumerate(encoded)]
    pixels = images.stack(rows, info.channels, max_bytes=request.max_bytes)
    return arrays.pixel_dataset(request, info, pixels, labels)


def _files(path: pathlib.Path) -> list[pathlib.Path]:
    """The parquet files at a path; only those of `train` where paths name splits.

    Raises:
      InputError: there are only other splits, which would be trained on.
    """
    if path.is_file():
        return [path] if arrays.kind_of(path) == "parquet" else []
    found = [
        file for depth in ("", "*/", "*/*/") for file in path.glob(f"{depth}*.parquet")
    ]
    splits = {
        file: set(_SPLIT.findall(file.relative_to(path).as_posix().lower()))
        for file in sorted(found)
        if file.is_file()
    }
    if not any(splits.values()):
        return list(splits)
    files = [file for file, named in splits.items() if named == {"train"}]
    if not files:
        named = sorted(set().union(*splits.values()))
        raise InputError(
            f"{path} holds the splits {', '.join(named)}, expected train: give the "
            "path of one file to read another"
        )
    return files


def _read_files(
    paths: list[pathlib.Path], max_bytes: int | None
) -> tuple[list[bytes], np.ndarray]:
    try:
        from pyarrow import parquet as pq
    except ImportError as error:
        raise MissingPackageError(
            f"parquet files are read with pyarrow: {pip_install('parquet')}"
        ) from error
    encoded: list[bytes] = []
    labels: list[int] = []
    for path in paths:
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                columns = _columns(file.schema_arrow.names, str(path))
                unpacked, stored = 0, path.stat().st_size
                for image, label in _rows(file, columns, path, max_bytes):
                    encoded.append(_bytes_of(image))
                    labels.append(label)
                    unpacked += len(encoded[-1])
                    unpacking.require_allowed(unpacked, stored, max_bytes)
        except unpacking.TooLargeError as error:
            raise unpacking.TooLargeError(f"{path} {error}") from None
        except InputError:
            raise
        except Exception as error:  # damaged bytes raise a dozen different types
            raise InputError(
                f"{path} is not a readable parquet file ({error}); it may be "
                "truncated: download it again"
            ) from error
    if not all(isinstance(label, int) for label in labels):
        raise InputError("there are rows without a label, or with one that is no class")
    return encoded, np.array(labels)


def _rows(
    file: Any, names: tuple[str, str], path: pathlib.Path, max_bytes: int | None
) -> Iterator[tuple[Any, Any]]:
    """The cells of each row.

    They are read in batches, as a dictionary can repeat one cell a billion times.
    """
    metadata, stored = file.metadata, path.stat().st_size
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    if sum(group.num_rows for group in groups) != metadata.num_rows:
        raise InputError(f"{path} holds another number of rows than it says")
    whole = sum(group.total_byte_size for group in groups)
    unpacking.require_allowed(whole, stored, max_bytes)
    most = unpacking.allowed_bytes(stored, max_bytes)
    batch_size = min(max(1, most // max(1, whole)), _ROWS)
    rows = 0
    for batch in file.iter_batches(batch_size, columns=list(names)):
        rows += batch.num_rows
        yield from zip(*(batch[name].to_pylist() for name in names), strict=True)
    if rows != metadata.num_rows:
        raise InputError(f"{path} holds {rows} rows and announces {metadata.num_rows}")


def _read_hub(hub_id: str) -> tuple[list[bytes], np.ndarray]:
    try:
        import datasets
    except ImportError as error:
        raise MissingPackageError(
            f"{hub_id} is not there, and as the id of a Hugging Face dataset it is "
            f"read with `datasets`: {pip_install('parquet')}"
        ) from error
    rows = datasets.load_dataset(hub_id, split="train")
    image_column, label_column = _columns(rows.column_names, hub_id)
    rows = rows.cast_column(image_column, datasets.Image(decode=False))
    encoded = [_bytes_of(image) for image in rows[image_column]]
    return encoded, np.asarray(rows[label_column])


def _columns(names: Iterable[str], where: str) -> tuple[str, str]:
    """The columns of the images and of their classes."""
    names = list(names)
    images = [name for name in _IMAGES if name in names]
    labels = [name for name in _LABELS if name in names]
    if not images or not labels:
        raise InputError(
            f"{where} has the columns {', '.join(names)}; expected one of "
            f"{', '.join(_IMAGES)} and one of {', '.join(_LABELS)}"
        )
    return images[0], labels[0]


def _bytes_of(image: Any) -> bytes:
    """The encoded image of a cell: bytes, or the hub's {"bytes": ..., "path": ...}."""
    data = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(data, bytes):
        raise InputError(
            f"a cell of the images holds {type(image).__name__} without encoded bytes"
        )
    return data
