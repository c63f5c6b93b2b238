"""Checksums of files and records, kept with them and compared before they are used."""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from gift_jax.runtime.errors import UserError

FILE = "checksums.json"
_FIELD = "checksum"


class DamagedError(UserError, ValueError):
    """Files are not those that were written."""


def fingerprint(record: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that stand for a JSON-able record, such as a recipe."""
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def with_checksum(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with its fingerprint as the last field."""
    return {**record, _FIELD: fingerprint(record)}


def without_checksum(record: Any) -> Any:
    """Undoes `with_checksum`; what has no checksum is returned unchanged.

    Raises:
      DamagedError: the checksum is that of another record.
    """
    if not isinstance(record, dict) or _FIELD not in record:
        return record
    content = {name: value for name, value in record.items() if name != _FIELD}
    if record[_FIELD] != fingerprint(content):
        raise DamagedError("its checksum is that of another record: it was damaged")
    return content


def digests(path: pathlib.Path) -> dict[str, str]:
    """SHA-256 of a file, or of all files below a directory by their relative names."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return {
        file.relative_to(path).as_posix(): _digest(file)
        for file in files
        if file.is_file()
    }


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def seal(directory: pathlib.Path, *, but: str = "") -> None:
    """Writes the checksums of all files below a directory, except one, into it."""
    found = {name: d for name, d in digests(directory).items() if name != but}
    (directory / FILE).write_text(json.dumps(found, indent=0) + "\n")


def verify(directory: pathlib.Path) -> None:
    """Compares the files below a directory with what `seal` wrote.

    Files that were added since are ignored.

    Raises:
      DamagedError: a file was changed or is missing; the message names it.
      OSError: a file cannot be read.
    """
    try:
        expected = json.loads((directory / FILE).read_text())
        for name, digest in expected.items():
            if _digest(directory / name) != digest:
                raise DamagedError(f"{name} is not what was written")
    except FileNotFoundError as error:
        name = pathlib.Path(error.filename).relative_to(directory)
        raise DamagedError(f"{name} is missing") from error
    except (ValueError, AttributeError) as error:
        if isinstance(error, DamagedError):
            raise
        raise DamagedError(f"{FILE} is not what was written") from error
