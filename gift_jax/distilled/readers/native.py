"""gift_jax's own directory, the product of its first stage."""

import pathlib

from gift_jax.distilled.dataset import DistilledDataset
from gift_jax.distilled.files import ARRAYS_FILE, METADATA_FILE, load_distilled
from gift_jax.distilled.readers.request import Request

LOOKS_LIKE = f"a directory with {ARRAYS_FILE} and {METADATA_FILE}"


def matches(path: pathlib.Path) -> bool:
    """Whether the path is such a directory, or the npz or json in it."""
    return all(
        (_directory(path) / name).is_file() for name in (ARRAYS_FILE, METADATA_FILE)
    )


def read(request: Request) -> DistilledDataset:
    """Reads the directory; see `read_distilled`."""
    dataset = load_distilled(_directory(request.path), max_bytes=request.max_bytes)
    request.require_same_dataset(dataset.metadata.dataset)
    return dataset


def files_beside(path: pathlib.Path) -> list[pathlib.Path]:
    """The npz and the json."""
    return [_directory(path) / name for name in (ARRAYS_FILE, METADATA_FILE)]


def _directory(path: pathlib.Path) -> pathlib.Path:
    inside = path.name in (ARRAYS_FILE, METADATA_FILE)
    return path.parent if inside else path
