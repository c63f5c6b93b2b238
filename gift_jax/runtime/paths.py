"""Directories that users give."""

import os
import pathlib
import re

from gift_jax.runtime.errors import InputError

# A URL as text, or as a path, where pathlib has removed a slash. One letter is a drive.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local(path: str | os.PathLike, name: str) -> pathlib.Path:
    """A path of this machine, with `~` expanded.

    Args:
      path: The path.
      name: Name of the setting, such as "--workdir", for the message.

    Raises:
      InputError: it is a URL, which would become a folder of that name.

    >>> local("runs/digits", "--workdir").name
    'digits'
    """
    if _URL.match(str(path)):
        raise InputError(
            f"{name} is {path}, a URL, expected a directory of this machine: mount the "
            "bucket, or use a shared disk (soft labels alone may lie in a cloud: "
            "relabel.store)"
        )
    return pathlib.Path(path).expanduser()
