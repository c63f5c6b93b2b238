"""NumPy's archives of arrays, which are not trusted: nothing is unpickled."""

import io
import pathlib
import sys
from collections.abc import Callable, Mapping

import numpy as np

from gift_jax.runtime import unpacking
from gift_jax.runtime.errors import InputError


def read_npz(
    path: pathlib.Path, *, max_bytes: int | None = None
) -> dict[str, np.ndarray]:
    """All arrays of an npz file, read-only; pickled objects are refused.

    Args:
      path: The file.
      max_bytes: Bytes that it may unpack to; None means `unpacking.allowed_bytes`.

    Raises:
      FileNotFoundError: there is no such file.
      TooLargeError: the file announces more than it may unpack to.
      InputError: the file is a directory, damaged, not an npz, or holds pickled
        objects.
    """
    if path.is_dir():
        raise InputError(f"{path} is a directory, expected an npz file")
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, or is no file")
    try:
        with path.open("rb") as file, unpacking.open_zip(file, max_bytes) as archive:
            return {
                name.removesuffix(".npy"): _array(unpacking.read_member(archive, name))
                for name in archive.namelist()
            }
    except unpacking.TooLargeError as error:
        raise unpacking.TooLargeError(f"{path} {error}") from None
    except Exception as error:  # damaged bytes raise a dozen different types
        raise InputError(
            f"{path} is not a readable npz file ({error}); it may be truncated or hold "
            "pickled objects: copy or download it again"
        ) from error


def write_npz(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays for `read_npz`; compressed, unless it would refuse the file."""
    _save(np.savez_compressed, path, arrays)
    try:
        with path.open("rb") as file:
            unpacking.open_zip(file).close()
    except unpacking.TooLargeError:
        _save(np.savez, path, arrays)


def _save(
    save: Callable[..., None], path: pathlib.Path, arrays: Mapping[str, np.ndarray]
) -> None:
    with path.open("wb") as file:  # as a file: to a path NumPy would add a suffix
        save(file, **arrays)


def _array(data: bytes) -> np.ndarray:
    """The array of an .npy file, which must be as long as its header says."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, in_fortran_order, dtype = read_header(stream)
    array = np.frombuffer(data, dtype, offset=stream.tell())
    if dtype.kind == "U" and array.size:
        codes = array.view(np.dtype(np.uint32).newbyteorder(dtype.byteorder))
        if codes.max() > sys.maxunicode:
            raise InputError("text of what are no characters")
    return array.reshape(shape, order="F" if in_fortran_order else "C")
