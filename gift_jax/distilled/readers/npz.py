"""A plain npz of pixels and labels, as `write_distilled` writes it."""

import pathlib

from gift_jax.distilled.dataset import DistilledDataset, read_npz
from gift_jax.distilled.readers import arrays, frepo, native, rfad
from gift_jax.distilled.readers.request import Request
from gift_jax.runtime.errors import InputError

LOOKS_LIKE = (
    ".npz with `images` uint8, or float in [0, 1], `labels` (N,) integers, and if "
    "known `soft_labels` (N, classes) and `dataset` (name)"
)


def matches(path: pathlib.Path) -> bool:
    """Whether the path is an npz file that is nothing more special."""
    special = any(reader.matches(path) for reader in (rfad, frepo, native))
    return arrays.kind_of(path) == "npz" and not special


def read(request: Request) -> DistilledDataset:
    """Reads the arrays; see `read_distilled`."""
    stored = read_npz(request.path, max_bytes=request.max_bytes)
    arrays.require(stored, "images", "labels")
    name = stored.get("dataset")
    info = request.info(name.item() if name is not None and name.size == 1 else name)
    labels = stored["labels"]
    if labels.ndim == 2 and labels.shape[1] != 1:
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
