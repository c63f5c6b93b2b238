"""Archives of arrays: read to the last bit, or refused."""

import io
import zipfile

import numpy as np
import pytest

from gift_jax.runtime import npz, unpacking
from gift_jax.runtime.errors import InputError
from gift_jax.runtime.npz import read_npz

RNG = np.random.default_rng(0)


def write_npz(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)


def npy(array, shape=None):
    """The bytes of an .npy file, with the shape that its header should give."""
    stream = io.BytesIO()
    header = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(
        stream, header | {"shape": shape or array.shape}
    )
    return stream.getvalue() + array.tobytes()


@pytest.mark.parametrize("shape", [(2,), (4,), (2**40,), (2**70,), (3, 0)])
def test_arrays_are_as_long_as_they_say(tmp_path, shape):
    path = tmp_path / "x.npz"
    write_npz(path, x=npy(np.arange(3.0)))
    np.testing.assert_array_equal(read_npz(path)["x"], [0, 1, 2])
    write_npz(path, x=npy(np.arange(3.0), shape))
    with pytest.raises(InputError, match=r"x\.npz is not a readable npz"):
        read_npz(path)


def test_arrays_of_any_kind_are_read(tmp_path):
    path = tmp_path / "x.npz"
    arrays = {
        "fortran": np.asfortranarray(RNG.normal(size=(3, 4, 2))),
        "big_endian": np.arange(3, dtype=">i4"),
        "empty": np.zeros((0, 3), np.float16),
        "scalar": np.array(7),
        "text": np.array("cifar10"),
    }
    np.savez(path, **arrays)
    for name, read in read_npz(path).items():
        np.testing.assert_array_equal(read, arrays[name])
        assert read.dtype == arrays[name].dtype


@pytest.mark.parametrize("size", [2**20, 2**25 - 128, 2**25 - 127, 2**25])
def test_what_is_written_is_read_however_well_it_compresses(tmp_path, size):
    path = tmp_path / "x.any"
    npz.write_npz(path, {"flat": np.zeros(size, np.uint8)})
    assert read_npz(path)["flat"].shape == (size,)
    is_allowed = size + 128 <= 2**25  # with the header
    assert (path.stat().st_size < size / 50) == is_allowed


def test_text_is_of_characters(tmp_path):
    path = tmp_path / "x.npz"
    for dtype in ("<u4", ">u4"):
        codes = np.array([104, 105, 2**30], dtype)
        data = npy(codes).replace(dtype.encode(), dtype[0].encode() + b"U1")
        write_npz(path, x=data)
        with pytest.raises(InputError, match="text of what are no characters"):
            read_npz(path)
        write_npz(path, x=data[:-4] + codes[:1].tobytes())
        assert read_npz(path)["x"].tolist() == ["h", "i", "h"]


def test_what_an_npz_announces_is_checked(tmp_path):
    path = tmp_path / "x.npz"
    write_npz(path, x=npy(np.zeros(2**25, np.uint8)))
    with pytest.raises(unpacking.TooLargeError, match=r"x\.npz announces 33,554,5"):
        read_npz(path)
    assert read_npz(path, max_bytes=2**26)["x"].size == 2**25
    write_npz(path, x=b"no array")
    with pytest.raises(InputError, match="magic string"):
        read_npz(path)


def test_other_files_under_the_name_of_an_npz(tmp_path):
    path = tmp_path / "x.npz"
    with path.open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(ValueError, match=r"x\.npz is not a readable npz"):
        read_npz(path)
    np.savez(path, images=np.zeros(3))
    content = bytearray(path.read_bytes())
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 10] = 99  # an unknown compression
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.npz is not a readable npz"):
        read_npz(path)
    with pytest.raises(ValueError, match="is a directory"):
        read_npz(tmp_path)
