"""PyTorch's `.pt` and `.pth` files as NumPy arrays, without PyTorch.

`torch.save` writes a pickle, and unpickling runs whatever the file asks for. The
reader here knows tensors, numbers, text and their containers; a file that names
anything else is refused and nothing of it is run, as by `torch.load` with
`weights_only=True`. NumPy scalars, which that refuses, are read as numbers: FKD soft
labels hold them. Both formats are read: the zip archive of torch 1.6 and later, and
the stream of pickles before that.
"""

import collections
import math
import operator
import os
import pathlib
import pickle
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from gift_jax.runtime import atomic
from gift_jax.runtime.errors import InputError

_DTYPES = {
    "FloatStorage": np.dtype(np.float32),
    "DoubleStorage": np.dtype(np.float64),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
_STORAGES = {dtype: name for name, dtype in _DTYPES.items()}

# The first pickle of a file that was written before the zip format.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class UnsafePickleError(InputError):
    """A file refers to a Python object that is not data, and may be code."""


def load_torch(path: str | os.PathLike) -> Any:
    """Reads what `torch.save` wrote.

    Args:
      path: A file with tensors, numbers, text, lists, tuples and dicts, such as a
        state dict, a distilled dataset or FKD soft labels.

    Returns:
      The same structure with NumPy arrays in place of tensors; they share memory
      where the tensors did. bfloat16 is that of `ml_dtypes`. A parameter is its
      array; gradients and devices are forgotten.

    Raises:
      FileNotFoundError: there is no such file.
      UnsafePickleError: the file refers to a class or function that is not data.
      InputError: the file is truncated, damaged or not PyTorch's.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    with path.open("rb") as stream:
        is_zip = stream.read(2) == b"PK"
        stream.seek(0)
        try:
            return _load_zip(stream) if is_zip else _load_legacy(stream)
        except UnsafePickleError as error:
            raise UnsafePickleError(f"{path} {error}") from None
        except Exception as error:  # damaged bytes raise a dozen different types
            raise InputError(
                f"{path} ({path.stat().st_size:,} bytes) is not a readable PyTorch "
                f"file ({type(error).__name__}: {error}). It may be truncated, or an "
                "error page saved in its place: copy or download it again"
            ) from error


def _load_zip(stream: BinaryIO) -> Any:
    with zipfile.ZipFile(stream) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise InputError(f"a zip archive with {len(pickles)} data.pkl, expected 1")
        root = pickles[0].removesuffix("data.pkl")
        big = f"{root}byteorder" in archive.namelist() and (
            archive.read(f"{root}byteorder") == b"big"
        )
        storages: dict[str, np.ndarray] = {}

        def storage(key: str, dtype: np.dtype, numel: int) -> np.ndarray:
            if key not in storages:
                stored = dtype.newbyteorder(">") if big else dtype
                data = archive.read(f"{root}data/{key}")
                storages[key] = np.frombuffer(data, stored, numel).astype(dtype)
            return storages[key]

        with archive.open(pickles[0]) as file:
            return _Unpickler(file, storage).load()


def _load_legacy(stream: BinaryIO) -> Any:
    storages: dict[str, np.ndarray] = {}

    def storage(key: str, dtype: np.dtype, numel: int) -> np.ndarray:
        # The bytes come after the pickle; tensors are views and see them then.
        return storages.setdefault(key, np.zeros(numel, dtype))

    if _Unpickler(stream, storage).load() != _LEGACY_MAGIC:
        raise InputError("it starts neither as a zip archive nor as an old torch file")
    _Unpickler(stream, storage).load()  # the protocol version
    if not _Unpickler(stream, storage).load()["little_endian"]:
        raise InputError("it is in big-endian byte order")
    result = _Unpickler(stream, storage).load()
    for key in _Unpickler(stream, storage).load():
        numel = int.from_bytes(stream.read(8), "little")
        data = stream.read(numel * storages[key].itemsize)
        storages[key][:] = np.frombuffer(data, storages[key].dtype, numel)
    return result


class _Unpickler(pickle.Unpickler):
    """Builds arrays, containers, numbers and text, and nothing else.

    Args:
      stream: Where the pickle is read from.
      storage: From a storage's key, dtype and number of elements to its array.
    """

    def __init__(
        self, stream: Any, storage: Callable[[str, np.dtype, int], np.ndarray]
    ) -> None:
        super().__init__(stream)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return name
        known = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch", "Size"): tuple,
            ("torch._utils", "_rebuild_tensor"): _tensor,  # before torch 0.4
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
            # NumPy scalars, as in the CutMix boxes of FKD soft labels.
            ("numpy.core.multiarray", "scalar"): _numpy_scalar,
            ("numpy._core.multiarray", "scalar"): _numpy_scalar,
            ("numpy", "dtype"): _NumpyDtype,
            ("_codecs", "encode"): _latin1_bytes,
        }
        if (module, name) not in known:
            raise UnsafePickleError(
                f"refers to the Python object {module}.{name}. Anything but tensors, "
                "numbers, text and their containers can run code from the file, so it "
                "is refused and nothing of it was run. If you trust the file, take its "
                "tensors out with PyTorch: torch.save(torch.load(path, "
                "weights_only=False)['model'], new_path), with the key that holds them"
            )
        return known[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, name, key, _, numel, *view_of_another = pid
        if kind != "storage" or numel < 0 or any(view_of_another):
            raise pickle.UnpicklingError(f"an unknown reference {pid!r}")
        return self._storage(str(key), _DTYPES[name], numel)


def _tensor(
    storage: np.ndarray,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *_: Any,
) -> np.ndarray:
    """A view of a storage, and of no memory beside it, whatever the pickle gives."""
    if not isinstance(storage, np.ndarray) or not storage.flags.c_contiguous:
        raise pickle.UnpicklingError("a tensor that is not made from a storage")
    storage = storage.reshape(-1)
    # Integers of Python: the product of two others can overflow.
    offset, *numbers = map(operator.index, (offset, *shape, *strides))
    sizes, steps = numbers[: len(shape)], numbers[len(shape) :]
    last = offset + sum(
        (size - 1) * step for size, step in zip(sizes, steps, strict=True)
    )
    if min(offset, *numbers, 0) < 0 or (0 not in sizes and last >= storage.size):
        raise pickle.UnpicklingError(
            f"a tensor of shape {sizes}, strides {steps} and offset {offset} "
            f"does not lie in its storage of {storage.size} elements"
        )
    return np.lib.stride_tricks.as_strided(
        storage[offset:], sizes, [step * storage.itemsize for step in steps]
    )


class _NumpyDtype:
    """Stands in for `numpy.dtype` and keeps what its pickle says."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code
        self.byte_order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.byte_order = state[1]


def _numpy_scalar(dtype: _NumpyDtype, data: bytes) -> int | float | bool:
    if dtype.code[:1] not in ("i", "u", "f", "b"):
        raise pickle.UnpicklingError(f"a NumPy scalar of type {dtype.code!r}")
    return np.frombuffer(data, np.dtype(dtype.byte_order + dtype.code), 1)[0].item()


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """How pickles of protocol 2 spell bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


def save_torch(path: str | os.PathLike, value: Any) -> None:
    """Writes a file that `torch.load(path, weights_only=True)` reads.

    Equal values give equal bytes.

    Args:
      path: Where to write; what is there is replaced once the new file is complete.
      value: NumPy arrays, which become tensors, in dicts, lists and tuples with
        numbers, text and None.

    Raises:
      FileNotFoundError: there is no such directory.
      TypeError: something else, or an array of a dtype that PyTorch lacks.
    """
    path = pathlib.Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"there is no directory {path.parent} to write {path.name} to"
        )
    storages: list[np.ndarray] = []
    pickled = b"\x80\x02" + _pickled(value, storages) + b"."
    records = {"data.pkl": pickled, "byteorder": b"little"}
    for key, array in enumerate(storages):
        little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        records[f"data/{key}"] = little.tobytes()
    records["version"] = b"3\n"
    with (
        atomic.replacing(path) as unfinished,
        zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive,
    ):
        for name, data in records.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), data)


def _pickled(value: Any, storages: list[np.ndarray]) -> bytes:
    """The opcodes (protocol 2) that build a value.

    Python's own pickler cannot name classes of a module that is not installed.
    """
    if isinstance(value, np.ndarray):
        return _pickled_tensor(value, storages)
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        # Without the frame: the PROTO opcode in front and STOP at the end.
        return pickle.dumps(value, protocol=2)[2:-1]
    if isinstance(value, Mapping):
        pairs = (part for item in value.items() for part in item)
        items = b"".join(_pickled(part, storages) for part in pairs)
        return pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS
    if isinstance(value, list | tuple):
        items = b"".join(_pickled(item, storages) for item in value)
        if isinstance(value, tuple):
            return pickle.MARK + items + pickle.TUPLE
        return pickle.EMPTY_LIST + pickle.MARK + items + pickle.APPENDS
    raise InputError(
        f"cannot write a {type(value).__name__} to a PyTorch file; expected NumPy "
        "arrays, dicts, lists, tuples, numbers, text or None"
    )


def _pickled_tensor(array: np.ndarray, storages: list[np.ndarray]) -> bytes:
    if array.dtype.newbyteorder("=") not in _STORAGES:
        raise InputError(
            f"PyTorch has no tensors of dtype {array.dtype}; "
            f"expected one of {', '.join(map(str, _STORAGES))}"
        )
    key = str(len(storages))
    storages.append(array)

    def plain(value: Any) -> bytes:
        return _pickled(value, [])

    def name(module: str, attribute: str) -> bytes:
        return pickle.GLOBAL + f"{module}\n{attribute}\n".encode()

    storage_type = _STORAGES[array.dtype.newbyteorder("=")]
    reference = (
        pickle.MARK
        + plain("storage")
        + name("torch", storage_type)
        + plain(key)
        + plain("cpu")
        + plain(array.size)
        + pickle.TUPLE
        + pickle.BINPERSID
    )
    strides = tuple(math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim))
    hooks = name("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    arguments = (
        reference + plain(0) + plain(array.shape) + plain(strides) + plain(False)
    )
    return (
        name("torch._utils", "_rebuild_tensor_v2")
        + pickle.MARK
        + arguments
        + hooks
        + pickle.TUPLE
        + pickle.REDUCE
    )
