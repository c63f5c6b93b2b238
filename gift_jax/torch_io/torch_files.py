"""PyTorch's files, and safetensors, as NumPy arrays, without PyTorch.

`torch.save` writes a pickle, and unpickling runs whatever the file asks for. The
reader here knows tensors, numbers, text and their containers; a file that names
anything else is refused and nothing of it is run, as by `torch.load` with
`weights_only=True`. NumPy scalars, which that refuses, are read as numbers: FKD soft
labels hold them. Both formats are read: the zip archive of torch 1.6 and later, and
the stream of pickles before that. What an optimizer, a scheduler or a sparse tensor
leaves in a file is data, too, and stands for itself or for None.
"""

import collections
import io
import json
import math
import operator
import os
import pathlib
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO, ClassVar

import ml_dtypes
import numpy as np

from gift_jax.runtime import atomic, unpacking
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
# github.com/huggingface/safetensors, README: dtypes by their names in a header.
_SAFETENSORS = {
    **{f"F{8 * n}": np.dtype(f"<f{n}") for n in (2, 4, 8)},
    **{f"I{8 * n}": np.dtype(f"<i{n}") for n in (1, 2, 4, 8)},
    **{f"U{8 * n}": np.dtype(f"<u{n}") for n in (1, 2, 4, 8)},
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "BOOL": np.dtype(np.bool_),
}
_STORAGES = {dtype: name for name, dtype in _DTYPES.items()}

# Names of dtypes and layouts, which are read as these names.
_TORCH_DTYPES = {
    *("float16", "float32", "float64", "bfloat16", "bool", "complex64", "complex128"),
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
    *("strided", "sparse_coo", "sparse_csr", "sparse_csc"),
}

# The first pickle of a file that was written before the zip format.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# An opcode of one byte makes a container of 64 bytes, and takes a microsecond.
_BUILT_BY_A_BYTE = 128
_LONGEST_LINE = 2**16
_PLAIN = (str, bytes, int, float, type(None))
_SHOWN = 200
# Objects of a class, sets, buffers, and integers of any length.
_REFUSED_OPCODES = (
    pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.OBJ, pickle.EXT1, pickle.EXT2, pickle.EXT4,
    pickle.DICT, pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET, pickle.LONG4,
    pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER, pickle.PERSID,
)  # fmt: skip


class UnsafePickleError(InputError):
    """A file refers to a Python object that is not data, and may be code."""


def load_torch(path: str | os.PathLike, *, max_bytes: int | None = None) -> Any:
    """Reads what `torch.save` wrote, or safetensors.

    Args:
      path: A file with tensors, numbers, text, lists, tuples and dicts, such as a
        state dict, a distilled dataset or FKD soft labels.
      max_bytes: Bytes that it may unpack to; by default a multiple of its size.

    Returns:
      The same structure with NumPy arrays in place of tensors; they share memory
      where the tensors did. bfloat16 is that of `ml_dtypes`. A parameter becomes its
      array; gradients and devices are dropped.

    Raises:
      FileNotFoundError: there is no such file.
      TooLargeError: the file announces more than it may unpack to.
      UnsafePickleError: the file refers to a class or function that is not data.
      InputError: the file is truncated, damaged or not PyTorch's.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, or is no file")
    with path.open("rb") as stream:
        start = stream.read(9)
        stream.seek(0)
        load = _load_zip if start.startswith(b"PK") else _load_legacy
        if start[8:] == b"{":
            load = _load_safetensors
        try:
            return load(stream, path.stat().st_size, max_bytes)
        except (UnsafePickleError, unpacking.TooLargeError) as error:
            raise type(error)(f"{path} {error}") from None
        except Exception as error:  # damaged bytes raise a dozen different types
            raise InputError(
                f"{path} ({path.stat().st_size:,} bytes) is not a readable PyTorch "
                f"file ({type(error).__name__}: {str(error)[:_SHOWN]}). It may be "
                "truncated, or an error page saved in its place: copy or download it "
                "again"
            ) from error


def _load_zip(stream: BinaryIO, stored: int, max_bytes: int | None) -> Any:
    with unpacking.open_zip(stream, max_bytes) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise InputError(f"a zip archive with {len(pickles)} data.pkl, expected 1")
        root = pickles[0].removesuffix("data.pkl")
        order = f"{root}byteorder"
        big = order in names and unpacking.read_member(archive, order) == b"big"
        storages: dict[str, np.ndarray] = {}

        def storage(key: str, dtype: np.dtype, numel: int) -> np.ndarray:
            if key not in storages:
                data = unpacking.read_member(archive, f"{root}data/{key}")
                stored_as = dtype.newbyteorder(">") if big else dtype
                storages[key] = np.frombuffer(data, stored_as).astype(dtype)
            return storages[key]

        pickled = io.BytesIO(unpacking.read_member(archive, pickles[0]))
        return _Unpickler(_Source(pickled, stored, max_bytes), storage).load()


def _load_legacy(stream: BinaryIO, stored: int, max_bytes: int | None) -> Any:
    storages: dict[str, np.ndarray] = {}
    source = _Source(stream, stored, max_bytes)

    def storage(key: str, dtype: np.dtype, numel: int) -> np.ndarray:
        # The bytes come after the pickle; tensors are views and see them then.
        if key not in storages:
            others = sum(array.nbytes for array in storages.values())
            if others + numel * dtype.itemsize > stored:
                raise InputError(f"it is too short for a storage of {numel} elements")
            storages[key] = np.zeros(numel, dtype)
        return storages[key]

    def unpickled() -> Any:
        return _Unpickler(source, storage).load()

    if unpickled() != _LEGACY_MAGIC:
        raise InputError("it starts neither as a zip archive nor as an old torch file")
    unpickled()  # the protocol version
    if not unpickled()["little_endian"]:
        raise InputError("it is in big-endian byte order")
    result, keys = unpickled(), unpickled()
    if sorted(keys) != sorted(storages):
        raise InputError(f"it stores {len(keys)} of its {len(storages)} storages")
    for key in keys:
        array, numel = storages[key], int.from_bytes(stream.read(8), "little")
        if numel != array.size:
            raise InputError(f"a storage of {array.size} elements is stored as {numel}")
        array[:] = np.frombuffer(stream.read(array.nbytes), array.dtype)
    return result


def _load_safetensors(
    stream: BinaryIO, stored: int, max_bytes: int | None
) -> dict[str, np.ndarray]:
    """Reads the header's length in 8 bytes, the header as JSON, then the arrays."""
    start = 8 + int.from_bytes(stream.read(8), "little")
    if start > stored:
        raise InputError(f"its header is said to end at byte {start:,}")
    header = json.loads(stream.read(start - 8))
    header.pop("__metadata__", None)
    arrays, place = {}, 0
    for name in sorted(header, key=lambda name: header[name]["data_offsets"]):
        begin, end = header[name]["data_offsets"]
        # The format has neither holes nor tensors that share bytes.
        if begin != place or not begin <= end <= stored - start:
            raise InputError(f"the tensor {name} does not lie in its place")
        data, place = stream.read(end - begin), end
        flat = np.frombuffer(data, _SAFETENSORS[header[name]["dtype"]])
        arrays[name] = flat.reshape(header[name]["shape"])
    return {name: arrays[name] for name in header}


class _Source:
    """The pickles of a file, and what they may still unpack to.

    Args:
      stream: Where they are read from.
      stored: Size of the file.
      max_bytes: See `load_torch`.
    """

    def __init__(self, stream: BinaryIO, stored: int, max_bytes: int | None) -> None:
        self._stream = stream
        self._limits = stored, max_bytes
        self._left = self._allowed = unpacking.allowed_bytes(stored, max_bytes)

    def spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            unpacking.require_allowed(self._allowed - self._left, *self._limits)

    def read(self, size: int) -> bytes:
        self.spend(_BUILT_BY_A_BYTE * size)
        data = self._stream.read(size)
        if len(data) < size:
            raise EOFError("the pickle is cut")
        return data

    def readline(self) -> bytes:
        line = self._stream.readline(_LONGEST_LINE)
        self.spend(_BUILT_BY_A_BYTE * len(line))
        if not line.endswith(b"\n"):
            raise EOFError("the pickle is cut")
        return line


_InPython: Any = pickle._Unpickler


class _Unpickler(_InPython):
    """Builds arrays, containers, numbers and text, and nothing else.

    It derives from the unpickler in Python, as the one in C allocates whatever a few
    bytes announce. What multiplies memory or time is refused.

    Args:
      source: Where a pickle is read from.
      storage: Gives a storage's array for its key, dtype and number of elements.
    """

    def __init__(
        self, source: _Source, storage: Callable[[str, np.dtype, int], np.ndarray]
    ) -> None:
        super().__init__(source)
        self._spend = source.spend
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and (name in _DTYPES or name in _TORCH_DTYPES):
            return name
        if (module, name) not in _KNOWN:
            raise UnsafePickleError(
                f"refers to the Python object {module}.{name}. Anything but tensors, "
                "numbers, text and their containers can run code from the file, so it "
                "is refused and nothing of it was run. Ask for the weights alone, "
                "torch.save(network.state_dict(), path), or as safetensors"
            )
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, name, key, _, numel, *view_of_another = pid
        names = isinstance(name, str) and isinstance(key, str | int)
        if not names or kind != "storage" or numel < 0 or any(view_of_another):
            raise pickle.UnpicklingError("an unknown reference to a storage")
        storage = self._storage(str(key), _DTYPES[name], numel)
        if (storage.dtype, storage.size) != (_DTYPES[name], numel):
            raise pickle.UnpicklingError(
                f"the storage {key} announces {numel} elements of {_DTYPES[name]} and "
                f"holds {storage.size} of {storage.dtype}"
            )
        return storage

    def load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack[-1]
        if not any(function is known for known in _KNOWN.values()):
            raise pickle.UnpicklingError("a call of what is no function")
        # One large argument can be copied by call after call.
        sized = [a for a in arguments if isinstance(a, str | bytes | list | tuple)]
        self._spend(_BUILT_BY_A_BYTE * sum(map(len, sized)))
        self.stack[-1] = function(*arguments)
        if function is _tensor:  # strides of 0 repeat elements as often as it says
            self._spend(self.stack[-1].nbytes)

    def load_build(self) -> None:
        state, built = self.stack.pop(), self.stack[-1]
        if isinstance(built, _NumpyDtype):
            built.__setstate__(state)
        elif not isinstance(built, collections.OrderedDict):  # whose state is metadata
            raise pickle.UnpicklingError("a state of what has none")

    def load_setitem(self) -> None:
        _require_plain(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        _require_plain(self.stack[::2])
        super().load_setitems()

    def load_others(self, *_: Any) -> None:
        raise pickle.UnpicklingError("an opcode that torch.save does not write")

    _instantiate = load_others
    dispatch: ClassVar = {
        **_InPython.dispatch,
        **dict.fromkeys((opcode[0] for opcode in _REFUSED_OPCODES), load_others),
        pickle.REDUCE[0]: load_reduce,
        pickle.BUILD[0]: load_build,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
    }


def _require_plain(keys: Iterable[Any]) -> None:
    """Refuses keys that are slow to hash: nested tuples are hashed anew each time."""
    for key in keys:
        parts = key if isinstance(key, tuple) and len(key) <= 16 else (key,)
        for part in parts:
            is_long = isinstance(part, int) and part.bit_length() > 60
            if is_long or not isinstance(part, _PLAIN):
                raise pickle.UnpicklingError("a key of a dict that is no name")


def _ordered_dict(pairs: Iterable[Any] = ()) -> collections.OrderedDict:
    pairs = [tuple(pair) for pair in pairs]
    _require_plain(key for key, _ in pairs)
    return collections.OrderedDict(pairs)


def _tensor(
    storage: np.ndarray,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *_: Any,
) -> np.ndarray:
    """A view of a storage, and of no memory beside it, whatever is asked for."""
    if not isinstance(storage, np.ndarray) or not storage.flags.c_contiguous:
        raise pickle.UnpicklingError("a tensor that is not made from a storage")
    storage = storage.reshape(-1)
    # Python's integers: products of NumPy's could overflow.
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
    if not re.fullmatch("[iufb][0-9]{1,2}", dtype.code):
        raise pickle.UnpicklingError("a NumPy scalar that is no number")
    return np.frombuffer(data, np.dtype(dtype.byte_order + dtype.code), 1)[0].item()


def _plain_set(members: Iterable[Any] = ()) -> set[Any]:
    members = list(members)
    _require_plain(members)
    return set(members)


def _counter(counts: Mapping[Any, Any] | None = None) -> collections.Counter:
    if not isinstance(counts, dict | type(None)):
        raise pickle.UnpicklingError("a Counter of no dict")
    return collections.Counter(counts)


def _nothing(*_: Any) -> None:
    """Stands for what is no array and is not needed here."""


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """How pickles of protocol 2 spell bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("collections", "Counter"): _counter,  # milestones of MultiStepLR
    ("__builtin__", "set"): _plain_set,
    ("builtins", "set"): _plain_set,
    ("torch", "Size"): tuple,
    ("torch", "device"): _nothing,
    ("torch.serialization", "_get_layout"): _nothing,
    ("torch._utils", "_rebuild_sparse_tensor"): _nothing,
    ("torch._utils", "_rebuild_qtensor"): _nothing,
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _nothing,
    ("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_: data,
    ("torch._utils", "_rebuild_tensor"): _tensor,  # before torch 0.4
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    # NumPy scalars, as in the CutMix boxes of FKD soft labels.
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
    ("numpy", "dtype"): _NumpyDtype,
    ("_codecs", "encode"): _latin1_bytes,
}


def save_torch(path: str | os.PathLike, value: Any) -> None:
    """Writes a file that `torch.load(path, weights_only=True)` reads.

    Equal values give equal bytes.

    Args:
      path: Where to write; what is there is replaced once the new file is complete.
      value: NumPy arrays, which become tensors, in dicts, lists and tuples with
        numbers, text and None.

    Raises:
      FileNotFoundError: there is no such directory.
      InputError: the value holds anything else, or a dtype that PyTorch lacks.
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
