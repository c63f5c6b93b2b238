"""Refuses files that announce more than they can hold, before anything is allocated.

A zip archive, a picture or a table announces the size it unpacks to, and a few hundred
bytes can announce gigabytes. The announced size is compared with that of the file.
"""

import os
import zipfile
from typing import BinaryIO

from gift_jax.runtime.errors import InputError

# Bytes that any file may unpack to, and for larger files the multiple of their size,
# which JPEGs of flat pictures hardly reach.
_ALWAYS = 2**25
_RATIO = 50

# With its other methods zipfile unpacks whole blocks, however large they become.
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class TooLargeError(InputError):
    """A file announces more than it may unpack to; the message follows its name."""


def allowed_bytes(stored: int, max_bytes: int | None = None) -> int:
    """How many bytes a file may unpack to.

    Args:
      stored: Size of the file in bytes.
      max_bytes: What the user allows instead of the usual multiple.
    """
    return max(_ALWAYS, _RATIO * stored) if max_bytes is None else max_bytes


def require_allowed(announced: int, stored: int, max_bytes: int | None = None) -> None:
    """Raises TooLargeError where a file of `stored` bytes announces too many."""
    allowed = allowed_bytes(stored, max_bytes)
    if announced > allowed:
        raise TooLargeError(
            f"announces {announced:,} bytes in {stored:,}, more than the {allowed:,} "
            "that it may unpack to. If you trust it, allow more: max_bytes in Python, "
            "--max_bytes of gift_jax.inspect, --config.distilled.max_bytes of the job"
        )


def open_zip(file: BinaryIO, max_bytes: int | None = None) -> zipfile.ZipFile:
    """Opens a zip archive of which all members together are of an allowed size.

    Raises:
      InputError: they are too large, or compressed in a way that cannot be bounded.
      Exception: of many types, if the file is damaged or no archive.
    """
    archive = zipfile.ZipFile(file)
    for member in archive.infolist():
        if member.compress_type not in _COMPRESSIONS:
            raise InputError(
                f"{member.filename!r} has compression method {member.compress_type}, "
                "expected none or deflate"
            )
    stored = file.seek(0, os.SEEK_END)
    announced = sum(member.file_size for member in archive.infolist())
    require_allowed(announced, stored, max_bytes)
    return archive


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member of an archive from `open_zip`, checked against its checksum."""
    size = archive.getinfo(name).file_size
    with archive.open(name) as stream:
        # Without a size, all that there is would be unpacked, and cut afterwards.
        data = stream.read(size)
    if len(data) < size:
        raise InputError(f"{name!r} holds {len(data)} bytes and announces {size}")
    return data
