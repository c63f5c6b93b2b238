"""How a distilled dataset is stored: arrays, what is known of them, and a picture."""

import dataclasses
import json
import pathlib
from typing import Any, NoReturn

import numpy as np

from gift_jax.data import fingerprint, preprocess
from gift_jax.distilled import preview
from gift_jax.distilled.dataset import (
    DistilledDataset,
    Metadata,
    as_uint8,
    from_uint8,
)
from gift_jax.runtime.errors import InputError
from gift_jax.runtime.npz import read_npz, write_npz

ARRAYS_FILE = "distilled.npz"
METADATA_FILE = "distilled.json"
PREVIEW_FILE = "preview.png"


def save_distilled(dataset: DistilledDataset, directory: pathlib.Path) -> None:
    """Writes `distilled.npz`, `distilled.json` and `preview.png` to a directory.

    Images that came from 8-bit pixels are stored as uint8, which is exact. The JSON
    holds a checksum of itself and the fingerprint of the arrays.
    """
    directory.mkdir(parents=True, exist_ok=True)
    pixels = as_uint8(dataset.images)
    arrays: dict[str, Any] = {
        "images": dataset.images if pixels is None else pixels,
        "labels": dataset.labels,
    }
    if dataset.soft_labels is not None:
        arrays["soft_labels"] = dataset.soft_labels
    normalization = dataset.preprocess
    if isinstance(normalization, preprocess.Whitening):
        arrays["zca_center"] = normalization.center
        arrays["zca_matrix"] = normalization.matrix
        arrays["zca_inverse"] = normalization.inverse
        if normalization.length is not None:
            arrays["zca_length"] = np.array(normalization.length)
        normalization = normalization.normalization
    write_npz(directory / ARRAYS_FILE, arrays)
    record = {
        **dataclasses.asdict(dataset.metadata),
        "mean": normalization.mean,
        "std": normalization.std,
        "zca": dataset.is_whitened,
        "ipc": dataset.ipc,
        "image_shape": dataset.images.shape[1:],
        "fingerprint": dataset.fingerprint,
    }
    record["checksum"] = _checksum(record)
    (directory / METADATA_FILE).write_text(json.dumps(record, indent=2) + "\n")
    preview.save_preview(dataset.pixels(), dataset.labels, directory / PREVIEW_FILE)


def load_distilled(
    directory: pathlib.Path, *, max_bytes: int | None = None
) -> DistilledDataset:
    """Reads what `save_distilled` wrote.

    Args:
      directory: The directory that was written.
      max_bytes: See `read_npz`.

    Raises:
      FileNotFoundError: a file is missing.
      InputError: a file is damaged or its arrays do not fit together.
    """
    arrays = read_npz(directory / ARRAYS_FILE, max_bytes=max_bytes)
    record = _read_record(directory / METADATA_FILE)
    try:
        dataset = _from_record(arrays, record)
        stored = record["fingerprint"]
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise InputError(
            f"{directory} lacks {error}, as save_distilled writes it; make it anew"
        ) from error
    except ValueError as error:
        raise InputError(f"{directory}: {error}") from error
    if dataset.fingerprint != stored:
        raise InputError(
            f"{directory / ARRAYS_FILE} has the fingerprint {dataset.fingerprint}, and "
            f"{METADATA_FILE} beside it was written for {stored}: they do not belong "
            "together, or are damaged; make them anew"
        )
    return dataset


def _read_record(path: pathlib.Path) -> dict[str, Any]:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no number")

    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, or is no file")
    try:
        record = json.loads(path.read_text(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(record, dict):
        raise InputError(
            f"{path} holds a JSON {type(record).__name__}, expected an object with the "
            "fields that save_distilled writes"
        )
    if record.pop("checksum", None) != _checksum(record):
        raise InputError(
            f"{path} has not the checksum of what save_distilled wrote: it is damaged, "
            "or was changed; make it anew"
        )
    return record


def _checksum(record: dict[str, Any]) -> str:
    return fingerprint.of(json.dumps(record, sort_keys=True))


def _from_record(
    arrays: dict[str, np.ndarray], record: dict[str, Any]
) -> DistilledDataset:
    images = arrays["images"]
    if images.dtype == np.uint8:
        images = from_uint8(images)
    normalization = preprocess.Normalization(record["mean"], record["std"])
    transform: preprocess.Preprocess = normalization
    if record["zca"]:
        transform = preprocess.Whitening(
            normalization=normalization,
            center=arrays["zca_center"],
            matrix=arrays["zca_matrix"],
            inverse=arrays["zca_inverse"],
            length=float(arrays["zca_length"]) if "zca_length" in arrays else None,
        )
    record = {"parts": 1, **record}  # which older files do not have
    fields = [field.name for field in dataclasses.fields(Metadata)]
    return DistilledDataset(
        images=images,
        labels=arrays["labels"],
        soft_labels=arrays.get("soft_labels"),
        preprocess=transform,
        metadata=Metadata(**{name: record[name] for name in fields}),
        are_pixels=True,
    )
