"""A plain npz of pixels and labels, as `write_distilled` writes it."""

import pathlib
import zipfile

import numpy as np

from gift_jax.distilled.dataset import DistilledDataset, read_npz
from gift_jax.distilled.readers import arrays
from gift_jax.distilled.readers.request import Request
from gift_jax.runtime.errors import InputError

LOOKS_LIKE = (
    ".npz with `images` uint8, or float in [0, 1], `labels` (N,) integers, and if "
    "known `soft_labels` (N, classes) and `dataset` (name)"
)


def array_names(path: pathlib.Path) -> set[str]:
    """Names of the arrays in an npz file; empty where the path is none."""
    if not (path.is_file() and zipfile.is_zipfile(path)):
        return set()
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):  # damaged
        return set()
    return {name.removesuffix(".npy") for name in names if name.endswith(".npy")}


def require(stored: dict[str, np.ndarray], *names: str) -> None:
    """Raises InputError where a name is missing."""
    missing = [name for name in names if name not in stored]
    if missing:
        raise InputError(
            f"no array named {' or '.join(map(repr, missing))}; "
            f"found {', '.join(stored) or 'none'}"
        )


def matches(path: pathlib.Path) -> bool:
    """Whether the path is an npz file that is nothing more special."""
    from gift_jax.distilled.readers import frepo, native, rfad

    special = any(reader.matches(path) for reader in (rfad, frepo, native))
    return path.suffix == ".npz" and path.is_file() and not special


def read(request: Request) -> DistilledDataset:
    """Reads the arrays; see `read_distilled`."""
    stored = read_npz(request.path)
    require(stored, "images", "labels")
    info = request.info(str(stored["dataset"]) if "dataset" in stored else None)
    labels = stored["labels"]
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise InputError(
            f"`labels` have shape {labels.shape}, expected (N,) integers; soft labels "
            "belong into `soft_labels`. If the file is RFAD's, say source='rfad'"
        )
    return arrays.pixel_dataset(
        request,
        info,
        arrays.channels_last(stored["images"]),
        labels[:, 0] if labels.ndim == 2 else labels,
        stored.get("soft_labels"),
    )
