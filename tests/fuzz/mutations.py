"""Damaged and hostile neighbours of good files, each from its seed.

A family writes a good file or folder, and damages a copy of it: as it lies on a disk,
or from within, so that what is damaged has its right place and checksum.
"""

import contextlib
import io
import json
import os
import pathlib
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet as pq

from gift_jax.data import info
from gift_jax.distilled import (
    DistilledDataset,
    Metadata,
    save_distilled,
    write_distilled,
)
from gift_jax.distilled import files as files_lib
from gift_jax.torch_io import torch_files

Rng = np.random.Generator

_RNG = np.random.default_rng(0)
_LABELS = np.repeat(np.arange(10), 2)
_PIXELS = _RNG.integers(0, 256, (20, 4, 4, 3), np.uint8)
DATASET = DistilledDataset(
    images=_PIXELS.astype(np.float32) / 255,
    labels=_LABELS,
    soft_labels=(_RNG.normal(size=(20, 10)) + np.eye(10)[_LABELS]).astype(np.float32),
    preprocess=info.CIFAR,
    metadata=Metadata("cifar10", 10, "rded", "fuzz", learning_rate=0.25),
)

# What counters and sizes do not expect.
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**30, 2**31 - 1, 2**32 - 1, 2**62)


def damage(rng: Rng, data: bytes) -> bytes:
    """One to three accidents: bits, numbers, and pieces lost, doubled or moved."""
    content = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        start = int(rng.integers(len(content) + 1))
        end = min(len(content), start + int(2 ** rng.uniform(0, 7)))
        match int(rng.integers(8)):
            case 0:
                content[start:end] = content[start : start + 1]
            case 1:
                del content[start:end]
            case 2:
                content[start:start] = content[start:end]
            case 3:
                content[start:start] = rng.bytes(end - start)
            case 4 if rng.integers(4) == 0:
                del content[start:]
            case 5:
                width = int(rng.choice([1, 2, 4, 8]))
                number = int(rng.choice(_NUMBERS)) % 256**width
                order = str(rng.choice(["little", "big"]))
                content[start : start + width] = number.to_bytes(width, order)
            case _ if start < len(content):
                content[start] ^= 1 << int(rng.integers(8))
    return bytes(content)


def damage_file(rng: Rng, path: pathlib.Path) -> None:
    path.write_bytes(damage(rng, path.read_bytes()))


def rezip(rng: Rng, path: pathlib.Path, change: Callable[[str, bytes], bytes]) -> None:
    """Changes a member of a zip archive, whose checksum is right afterwards."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chosen = str(rng.choice(list(members)))
    members[chosen] = change(chosen, members[chosen])
    if rng.integers(8) == 0:
        members[chosen[: int(rng.integers(len(chosen)))] + ".npy"] = members.pop(chosen)
    compression = int(rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def other_array(rng: Rng) -> np.ndarray:
    """An array of any type and shape."""
    sides = [0, 1, 3, 10, 20]
    shape = tuple(int(s) for s in rng.choice(sides, int(rng.integers(5))))
    kinds = ["u1", "i8", ">i4", "u8", "f2", ">f4", "f8", "?", "c8", "U3", "S2", "V4"]
    kinds += ["M8[s]", "i4,f4"]
    dtype = np.dtype(str(rng.choice(kinds)))
    size = int(np.prod(shape)) * dtype.itemsize
    is_random = rng.integers(2) and dtype.kind not in "U?"
    data = rng.bytes(size) if is_random else bytes(size)
    return np.frombuffer(data, dtype).reshape(shape) if size else np.zeros(shape, dtype)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def change_npy(rng: Rng) -> Callable[[str, bytes], bytes]:
    if rng.integers(2):
        return lambda _, data: damage(rng, data)
    return lambda *_: npy(other_array(rng))


class Family(NamedTuple):
    """Files of one kind.

    Attributes:
      write: Writes the good one to a path, which it returns or what lies in it.
      on_disk: Damages it so that only its contents are a good answer, or an error.
      within: Damages it so that any dataset is a good answer, or an error.
    """

    write: Callable[[pathlib.Path], pathlib.Path]
    on_disk: Callable[[Rng, pathlib.Path], None] | None
    within: Callable[[Rng, pathlib.Path], None]


# NumPy's archives.


def _write_npz(directory: pathlib.Path) -> pathlib.Path:
    write_distilled(DATASET, directory / "cifar10.npz", "npz")
    return directory / "cifar10.npz"


def _within_npz(rng: Rng, path: pathlib.Path) -> None:
    rezip(rng, path, change_npy(rng))


# PyTorch's files.


def content() -> dict[str, Any]:
    """As data.pt holds it."""
    images = np.ascontiguousarray(np.moveaxis(DATASET.images, -1, 1))
    return {"dataset": "cifar10", "data": images, "label": DATASET.labels}


def _write_pt(directory: pathlib.Path) -> pathlib.Path:
    torch_files.save_torch(directory / "data.pt", content())
    return directory / "data.pt"


def _within_pt(rng: Rng, path: pathlib.Path) -> None:
    if rng.integers(4) == 0:
        changed = content()
        changed[str(rng.choice(list(changed)))] = any_value(rng)
        torch_files.save_torch(path, changed)
    else:
        rezip(rng, path, lambda _, data: damage(rng, data))


def any_value(rng: Rng) -> Any:
    values = [None, 3, -1, 2**70, 1e300, "cifar10", "x" * 10**5, [], {}, [[]], (1, 2)]
    values += [np.zeros((20, 10), np.float32), np.zeros(20, np.int64), np.zeros(0)]
    values += [np.full((20, 3, 4, 4), np.nan, np.float32), np.zeros((20, 0))]
    return values[int(rng.integers(len(values)))]


def legacy(value: Any) -> bytes:
    """As torch.save wrote it before its zip format."""
    storages: list[np.ndarray] = []
    built = b"\x80\x02" + torch_files._pickled(value, storages) + b"."
    header = (torch_files._LEGACY_MAGIC, 1001, {"little_endian": True})
    parts = [pickle.dumps(part, protocol=2) for part in header]
    parts += [built, pickle.dumps([str(key) for key in range(len(storages))], 2)]
    for array in storages:
        parts += [array.size.to_bytes(8, "little"), array.tobytes()]
    return b"".join(parts)


def _write_experiments(directory: pathlib.Path) -> pathlib.Path:
    path = directory / "res_DC_CIFAR10_ConvNet_2ipc.pt"
    run = [content()["data"], DATASET.labels]
    torch_files.save_torch(path, {"data": [run, run], "accs_all_exps": {"x": 0.5}})
    return path


def _within_experiments(rng: Rng, path: pathlib.Path) -> None:
    run = [content()["data"], DATASET.labels]
    if rng.integers(4) == 0:
        run[int(rng.integers(2))] = any_value(rng)
        broken = [[run, run], run, [run[:1]], any_value(rng)][int(rng.integers(4))]
        torch_files.save_torch(path, {"data": broken})
    else:
        rezip(rng, path, lambda _, data: damage(rng, data))


def _write_mosaics(directory: pathlib.Path) -> pathlib.Path:
    folder = directory / "cifar10_idc"
    folder.mkdir()
    torch_files.save_torch(folder / "data.pt", [content()["data"], DATASET.labels])
    (folder / "args.txt").write_text(json.dumps({"factor": 2, "nclass": 10}))
    return folder


def _within_mosaics(rng: Rng, path: pathlib.Path) -> None:
    if rng.integers(2):
        damage_file(rng, path / "args.txt")
    else:
        _within_pair(rng, path)


def _write_pair(directory: pathlib.Path) -> pathlib.Path:
    folder = directory / "cifar10_datm"
    folder.mkdir()
    parts = {"images": content()["data"], "labels": DATASET.soft_labels, "lr": 0.25}
    for name, part in parts.items():
        torch_files.save_torch(folder / f"{name}_best.pt", part)
    return folder


def _any_torch_file(rng: Rng, path: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(str(rng.choice(sorted(map(str, path.glob("*.pt"))))))


def _damage_torch_file(rng: Rng, path: pathlib.Path) -> None:
    damage_file(rng, _any_torch_file(rng, path))


def _within_pair(rng: Rng, path: pathlib.Path) -> None:
    file = _any_torch_file(rng, path)
    match int(rng.integers(4)):
        case 0:
            torch_files.save_torch(file, any_value(rng))
        case 1:
            file.rename(path / str(rng.choice(["labels.pt", "images.pt", "x.pt"])))
        case _:
            rezip(rng, file, lambda _, data: damage(rng, data))


def _write_legacy(directory: pathlib.Path) -> pathlib.Path:
    (directory / "data.pt").write_bytes(legacy(content()))
    return directory / "data.pt"


# Parquet.


def _write_parquet(directory: pathlib.Path) -> pathlib.Path:
    write_distilled(DATASET, directory / "cifar10.parquet", "parquet")
    return directory / "cifar10.parquet"


def _within_parquet(rng: Rng, path: pathlib.Path) -> None:
    if rng.integers(2):
        damage_file(rng, path)  # its page headers and its directory have no checksum
        return
    columns = pq.read_table(path).to_pydict()
    row = int(rng.integers(20))
    match int(rng.integers(5)):
        case 0:
            columns["image"][row]["bytes"] = damage(rng, columns["image"][row]["bytes"])
        case 1:
            columns["image"][row] = None
        case 2:
            columns["class_id"][row] = int(rng.integers(-2, 2**31))
        case 3:
            columns["class_id"] = [any_value(rng)] * 20
        case 4:
            columns = {name[: int(rng.integers(9))]: c for name, c in columns.items()}
    codec = str(rng.choice(["none", "snappy", "gzip", "zstd"]))
    # There are columns that no table can hold.
    with contextlib.suppress(pa.ArrowException, OverflowError, TypeError):
        pq.write_table(pa.table(columns), path, compression=codec)


# Class folders.


def _write_folders(directory: pathlib.Path) -> pathlib.Path:
    write_distilled(DATASET, directory / "cifar10", "folders")
    return directory / "cifar10"


def _any_image(rng: Rng, path: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(str(rng.choice(sorted(map(str, path.glob("*/*.png"))))))


def _damage_image(rng: Rng, path: pathlib.Path) -> None:
    damage_file(rng, _any_image(rng, path))


def _within_folders(rng: Rng, path: pathlib.Path) -> None:
    file = _any_image(rng, path)
    match int(rng.integers(8)):
        case 0:
            file.unlink()
        case 1:
            file.unlink()
            os.mkfifo(file)
        case 2:
            file.unlink()
            file.symlink_to(str(rng.choice([file.name, "/dev/zero", "nowhere", "."])))
        case 3:
            file.unlink()
            file.mkdir()
        case 4:
            names = ["x.txt", "new003", "9.png", ".hidden", "class1_id99999999999.png"]
            file.rename(file.with_name(str(rng.choice(names))))
        case 5:
            file.parent.rename(path / str(rng.choice(["new11", "x", "3", "9" * 200])))
        case 6:
            kind = str(rng.choice(["JPEG", "GIF", "WEBP", "TIFF", "EPS", "BMP", "PPM"]))
            Image.fromarray(_PIXELS[0]).save(file, kind)
            damage_file(rng, file)
        case 7:
            file.write_bytes(change_chunk(rng, file.read_bytes()))


def change_chunk(rng: Rng, png: bytes) -> bytes:
    """Damages a chunk of a PNG, whose checksum is right afterwards."""
    chunks, place = [], 8
    while place < len(png):
        (size,) = struct.unpack(">I", png[place : place + 4])
        chunks.append(png[place + 4 : place + 8 + size])
        place += 12 + size
    index = int(rng.integers(len(chunks)))
    kind, inside = chunks[index][:4], chunks[index][4:]
    chunks[index] = kind + damage(rng, inside)
    written = png[:8]
    for chunk in chunks:
        checksum = struct.pack(">I", zlib.crc32(chunk))
        written += struct.pack(">I", len(chunk) - 4) + chunk + checksum
    return written


# The product of gift_jax's own first stage.


def _write_product(directory: pathlib.Path) -> pathlib.Path:
    save_distilled(DATASET, directory / "own")
    return directory / "own"


def _damage_product(rng: Rng, path: pathlib.Path) -> None:
    names = (files_lib.ARRAYS_FILE, files_lib.METADATA_FILE)
    damage_file(rng, path / str(rng.choice(names)))


def _within_product(rng: Rng, path: pathlib.Path) -> None:
    if rng.integers(2):
        rezip(rng, path / files_lib.ARRAYS_FILE, change_npy(rng))
        return
    file = path / files_lib.METADATA_FILE
    record = json.loads(file.read_text())
    del record["checksum"]
    values = [None, True, 0, -1, 2.5, 10**12, 1e300, "", "cifar10", [], [0.5] * 3, {}]
    values += [[[0.1]] * 3, ["a"] * 3, [1e300] * 3, [0, 0, 0], "gift_jax" * 1000]
    for _ in range(int(rng.integers(1, 3))):
        name = str(rng.choice(list(record)))
        record[name] = values[int(rng.integers(len(values)))]
    record["checksum"] = files_lib._checksum(record)
    file.write_text(json.dumps(record))


FAMILIES = {
    "npz": Family(_write_npz, damage_file, _within_npz),
    "pt_zip": Family(_write_pt, damage_file, _within_pt),
    "pt_experiments": Family(_write_experiments, damage_file, _within_experiments),
    "pt_mosaics": Family(_write_mosaics, _damage_torch_file, _within_mosaics),
    "pt_pair": Family(_write_pair, _damage_torch_file, _within_pair),
    "pt_legacy": Family(_write_legacy, None, damage_file),
    "parquet": Family(_write_parquet, None, _within_parquet),
    "folders": Family(_write_folders, _damage_image, _within_folders),
    "product": Family(_write_product, _damage_product, _within_product),
}
