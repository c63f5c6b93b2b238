import io
import zipfile

import pytest

from gift_jax.runtime import unpacking
from gift_jax.runtime.errors import InputError


def archive_of(compression=zipfile.ZIP_DEFLATED, **members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file


def announce(file, size):
    """Says in the directory of an archive of one member that it is of another size."""
    content = bytearray(file.getvalue())
    start = content.rindex(b"PK\x01\x02") + 24
    content[start : start + 4] = size.to_bytes(4, "little")
    return io.BytesIO(content)


def test_any_file_may_unpack_to_a_little_and_large_ones_to_more():
    assert unpacking.allowed_bytes(10) == 2**25
    assert unpacking.allowed_bytes(10**9) == 50 * 10**9
    assert unpacking.allowed_bytes(10**9, max_bytes=7) == 7
    unpacking.require_allowed(2**25, 10)
    unpacking.require_allowed(2**40, 10, max_bytes=2**40)
    with pytest.raises(unpacking.TooLargeError, match="33,554,433 bytes in 10, more"):
        unpacking.require_allowed(2**25 + 1, 10)


@pytest.mark.parametrize("size", [0, 5, 10**6])
def test_members_are_read_whole(size):
    with unpacking.open_zip(archive_of(a=b"7" * size, b=b"other")) as archive:
        assert unpacking.read_member(archive, "a") == b"7" * size
        assert unpacking.read_member(archive, "b") == b"other"


def test_all_members_together_are_held_against_the_limit():
    file = archive_of(a=bytes(2**24), b=bytes(2**24), c=b"1")
    with pytest.raises(unpacking.TooLargeError, match="announces 33,554,433 bytes"):
        unpacking.open_zip(file)
    assert unpacking.open_zip(file, max_bytes=2**26).namelist() == ["a", "b", "c"]


@pytest.mark.parametrize("size", [1, 10**5, 10**7])
def test_another_size_than_announced_is_found(size):
    archive = unpacking.open_zip(announce(archive_of(a=bytes(10**6)), size))
    with pytest.raises((InputError, zipfile.BadZipFile), match="'a'"):
        unpacking.read_member(archive, "a")


def test_damage_is_found_by_the_checksum():
    content = bytearray(archive_of(zipfile.ZIP_STORED, a=b"1234567").getvalue())
    content[content.index(b"1234567") + 3] ^= 1
    archive = unpacking.open_zip(io.BytesIO(content))
    with pytest.raises(zipfile.BadZipFile, match="Bad CRC-32"):
        unpacking.read_member(archive, "a")


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(compression):
    """They unpack a block whole, whatever it comes to."""
    with pytest.raises(InputError, match=r"'a' has compression method 1\d"):
        unpacking.open_zip(archive_of(compression, a=bytes(10**6)))
