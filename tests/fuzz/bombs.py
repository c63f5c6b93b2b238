"""Small files that announce or nest what no memory holds, made by hand."""

import io
import json
import os
import struct
import zipfile
import zlib

import numpy as np
import pyarrow as pa
from flax import serialization
from PIL import Image
from pyarrow import parquet as pq

from gift_jax.distilled import files as files_lib
from gift_jax.distilled import save_distilled
from gift_jax.torch_io import torch_files
from tests.fuzz.mutations import DATASET, content, legacy, npy

_LABELS = {"labels.npy": npy(DATASET.labels)}
_IMAGES = {"images.npy": npy(DATASET.images)}


def zipped(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def npz(directory, compression=zipfile.ZIP_DEFLATED, **members):
    named = {f"{name}.npy": data for name, data in members.items()}
    return zipped(directory / "x.npz", _IMAGES | _LABELS | named, compression)


def header(shape, descr="<f4"):
    """The start of an .npy file."""
    stream = io.BytesIO()
    fields = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, fields)
    return stream.getvalue()


def understated(directory):
    """A member that says 100 bytes and unpacks to a gibibyte."""
    path = npz(directory, images=bytes(2**30))
    whole = bytearray(path.read_bytes())
    local, central = whole.index(b"PK\x03\x04"), whole.rindex(b"images.npy") - 46
    for place in (local + 22, central + 24):
        whole[place : place + 4] = struct.pack("<I", 100)
    return written(path, whole)


def gift(directory, pickled, **records):
    members = {"x/data.pkl": pickled, "x/version": b"3\n", **records}
    return zipped(directory / "data.pt", members)


def opcodes(value):
    return torch_files._pickled(value, [])


def tensor(numel, shape, strides, kind="FloatStorage"):
    """The opcodes of a tensor of the storage 0."""
    storage = b"(" + opcodes("storage") + f"ctorch\n{kind}\n".encode()
    storage += opcodes("0") + opcodes("cpu") + opcodes(numel) + b"tQ"
    start = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage
    geometry = b"".join(opcodes(part) for part in (0, shape, strides, False))
    return start + geometry + b"ccollections\nOrderedDict\n)RtR"


def pickled(**entries):
    """A dict of what a reader looks for, whose values are opcodes."""
    entries = {name: opcodes(value) for name, value in content().items()} | entries
    items = b"".join(opcodes(name) + value for name, value in entries.items())
    return b"\x80\x02}(" + items + b"u."


# A list in itself; and lists of two lists of two lists ..., 2**50 in all.
RECURSIVE = b"]q\x00h\x00a"
LAUGHS = b"]" + b"".join(b"q%c](h%ch%ce" % (i, i, i) for i in range(50))
NESTED = b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(50))
DEEP = b"]" * 10**5 + b"a" * (10**5 - 1)


def stored(numel=20, kind=np.float32):
    return {"x/data/0": np.zeros(numel, kind).tobytes()}


def png(width, height, *chunks):
    """A picture of one colour, small as a file."""
    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(3 * width + 1)) for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = (b"IDAT", rows + packer.flush())
    whole = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", head), *chunks, body, (b"IEND", b"")):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        whole += struct.pack(">I", len(data)) + kind + data + checksum
    return whole


def announcing(width, height):
    """A picture of 4x4 pixels that says to be larger."""
    small = png(4, 4)
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return small[:12] + head + struct.pack(">I", zlib.crc32(head)) + small[33:]


def folders(directory, picture, suffix="png"):
    for label in range(10):
        (directory / f"{label:05d}").mkdir()
        file = directory / f"{label:05d}" / f"class{label:05d}_id00000.{suffix}"
        file.write_bytes(picture)
    return directory


def large_picture(kind):
    stream = io.BytesIO()
    Image.new("RGB", (4000, 4000)).save(stream, kind)
    return stream.getvalue()


def parquet(directory, images, labels, **options):
    path = directory / "x.parquet"
    pq.write_table(pa.table({"image": images, "class_id": labels}), path, **options)
    return path


def repeated(directory):
    """A picture of a mebibyte, two hundred thousand times."""
    indices = pa.array(np.zeros(200_000, np.int32))
    images = pa.DictionaryArray.from_arrays(indices, pa.array([bytes(2**20)]))
    return parquet(directory, images, np.zeros(200_000, np.int32))


def product(directory, **changes):
    save_distilled(DATASET, directory / "own")
    file = directory / "own" / files_lib.METADATA_FILE
    record = json.loads(file.read_text()) | changes
    del record["checksum"]
    record["checksum"] = files_lib._checksum(record)
    file.write_text(json.dumps(record))
    return directory / "own"


def pipe(directory, name, *others):
    """A named pipe, which would be waited for."""
    path = directory / name
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)
    return path


def product_pipe(directory, name):
    path = product(directory) / name
    path.unlink()
    os.mkfifo(path)
    return path.parent


def checkpoint(directory, data):
    (directory / "checkpoint_1").write_bytes(data)
    return directory / "checkpoint_1"


def fkd(directory):
    """Soft labels of which the last file has a number like no other."""
    (directory / "epoch_0").mkdir()
    for number in (0, 3 * 10**8):
        (directory / "epoch_0" / f"batch_{number}.tar").touch()
    return directory


def written(path, data):
    path.write_bytes(data)
    return path


BOMBS = {
    "npz: header of 2**40": lambda d: npz(d, images=header((2**40,)) + bytes(8)),
    "npz: header beyond integers": lambda d: npz(d, images=header((2**80, 2**80))),
    "npz: elements of 2**30 bytes": lambda d: npz(
        d, images=header((4,), "|V1073741824")
    ),
    "npz: text of 2**30": lambda d: npz(d, dataset=header((), "<U268435456")),
    "npz: no bytes 2**60 times": lambda d: npz(d, images=header((2**60,), "|V0")),
    "npz: zeros": lambda d: npz(d, images=header((2**25,)) + bytes(2**27)),
    "npz: zeros beside it": lambda d: npz(d, other=npy(np.zeros(2**24))),
    "npz: bzip2": lambda d: npz(d, zipfile.ZIP_BZIP2, images=bytes(2**26)),
    "npz: lzma": lambda d: npz(d, zipfile.ZIP_LZMA, images=bytes(2**25)),
    "npz: understated": understated,
    "npz: a header of parentheses": lambda d: npz(
        d, images=b"\x93NUMPY\x01\x00\x00\x20" + b"(" * 0x2000
    ),
    "npz: 2**31 classes": lambda d: npz(
        d, labels=npy(DATASET.labels + np.int64(2**31)), soft_labels=header((20, 2**31))
    ),
    "pt: memo": lambda d: written(d / "data.pt", b"\x80\x02Nr\x00\x00\x00\x40."),
    "pt: memo in zip": lambda d: gift(d, b"\x80\x02Nr\x00\x00\x00\x40."),
    "pt: storage of zeros": lambda d: gift(
        d, pickled(data=tensor(2**25, (20, 3, 4, 4), (1, 1, 1, 1))), **stored(2**25)
    ),
    "pt: storage of 2**40": lambda d: gift(
        d, pickled(data=tensor(2**40, (20, 3, 4, 4), (0, 0, 0, 0))), **stored()
    ),
    "pt: stride 0": lambda d: gift(
        d, pickled(data=tensor(20, (20, 3, 10**4, 10**4), (0, 0, 0, 0))), **stored()
    ),
    "pt: labels of stride 0": lambda d: gift(
        d, pickled(label=tensor(20, (2**40,), (0,), "LongStorage")), **stored(40)
    ),
    "pt: recursive": lambda d: gift(d, b"\x80\x02" + RECURSIVE + b"."),
    "pt: billion laughs": lambda d: gift(d, b"\x80\x02" + LAUGHS + b"."),
    "pt: laughs for a name": lambda d: gift(d, pickled(dataset=LAUGHS)),
    "pt: nested tuples": lambda d: gift(d, b"\x80\x02" + NESTED + b"."),
    "pt: nested tuples for a key": lambda d: gift(d, b"\x80\x02}" + NESTED + b"Ns."),
    "pt: nested tuples for a storage": lambda d: gift(d, b"\x80\x02" + NESTED + b"Q."),
    "pt: lists in lists": lambda d: gift(d, b"\x80\x02" + DEEP + b"."),
    "pt: lists for a name": lambda d: gift(d, pickled(dataset=DEEP)),
    "pt: a pickle of lists": lambda d: gift(d, b"\x80\x02" + b"]" * 2**25 + b"."),
    "pt: an integer": lambda d: gift(d, b"\x80\x02\x8b\xff\xff\xff\x00" + bytes(2**24)),
    "pt: one key": lambda d: gift(
        d, b"\x80\x02}(" + (b"\x8a\xff" + b"\x01" * 255 + b"N") * 2000 + b"u."
    ),
    "pt: bytes of 2**60": lambda d: written(
        d / "data.pt", b"\x80\x04\x8e" + (2**60).to_bytes(8, "little")
    ),
    "pt: a buffer of 2**40": lambda d: written(
        d / "data.pt", b"\x80\x05\x96" + (2**40).to_bytes(8, "little")
    ),
    "pt: legacy storage of 2**40": lambda d: written(
        d / "data.pt", legacy(content()).replace(opcodes(960), opcodes(2**40))
    ),
    "png: announces 30000": lambda d: folders(d, announcing(30000, 30000)),
    "png: announces 5000": lambda d: folders(d, announcing(5000, 5000)),
    "png: is large": lambda d: folders(d, png(6000, 6000)),
    "png: text": lambda d: folders(
        d, png(4, 4, *[(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**25)))] * 20)
    ),
    "jpg: is large": lambda d: folders(d, large_picture("JPEG"), "jpg"),
    "webp: is large": lambda d: folders(d, large_picture("WEBP"), "jpg"),
    "eps": lambda d: folders(d, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    "parquet: dictionary": repeated,
    "parquet: zeros": lambda d: parquet(
        d, [bytes(2**26)], [0], compression="zstd", use_dictionary=False
    ),
    "parquet: pictures": lambda d: parquet(
        d, [announcing(30000, 30000)] * 10, range(10)
    ),
    "parquet: large pictures": lambda d: parquet(d, [png(6000, 6000)] * 10, range(10)),
    "product: 10**12 classes": lambda d: product(d, num_classes=10**12),
    "product: deep JSON": lambda d: (
        written(product(d) / "distilled.json", b"[" * 10**6).parent
    ),
    "product: an integer": lambda d: (
        written(
            product(d) / "distilled.json", b'{"mean": ' + b"9" * 10**6 + b"}"
        ).parent
    ),
    "msgpack: array of 2**32": lambda d: checkpoint(
        d, b"\x81\xa1a\xdd\xff\xff\xff\xff"
    ),
    "msgpack: deep": lambda d: checkpoint(d, b"\x81\xa1a" + b"\x91" * 10**6),
    "msgpack: shape of 2**40": lambda d: checkpoint(
        d,
        serialization.msgpack_serialize(
            {"params": {"x_proto": np.zeros(4, np.float32), "y_proto": np.zeros(3)}}
        ).replace(b"\x91\x04", b"\x91\xcf" + bytes([0, 0, 1, 0, 0, 0, 0, 0])),
    ),
    "fkd: a number of 3 * 10**8": fkd,
    "pipe: data.pt": lambda d: pipe(d, "data.pt"),
    "pipe: npz": lambda d: pipe(d, "x.npz"),
    "pipe: parquet": lambda d: pipe(d, "x.parquet"),
    "pipe: checkpoint": lambda d: pipe(d, "checkpoint_1").parent,
    "pipe: directory of data.pt": lambda d: pipe(d, "data.pt").parent,
    "pipe: in a class folder": lambda d: (pipe(d, "00000/0.png"), d)[1],
    "pipe: distilled.json": lambda d: product_pipe(d, "distilled.json"),
    "pipe: distilled.npz": lambda d: product_pipe(d, "distilled.npz"),
    "pipe: recipe.json": lambda d: pipe(d, "recipe.json").parent,
}


def write_all(directory):
    """Writes each to a folder of its own, and where it lies to `bombs.json`."""
    paths = {}
    for index, (name, write) in enumerate(BOMBS.items()):
        place = directory / str(index)
        place.mkdir(parents=True)
        paths[name] = str(write(place))
    (directory / "bombs.json").write_text(json.dumps(paths))
