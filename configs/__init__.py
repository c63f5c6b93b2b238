"""One config per dataset, over the defaults of `common`; and published `protocols`.

The folder is installed as `gift_jax.configs`.
"""

import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

from absl import app, flags
from ml_collections import config_flags
from ml_collections.config_dict import ConfigDict


def define_flag() -> "flags.FlagHolder[ConfigDict]":
    """The flag --config of a command, which exits where a --flagfile is not there."""
    try:
        return config_flags.DEFINE_config_file(
            "config", None, "A file, or gift_jax:NAME, with its options behind a colon."
        )
    except flags.Error as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def given(flag: "flags.FlagHolder[ConfigDict]") -> dict[str, Any]:
    """The fields that the command line gives, with their values."""
    return config_flags.get_override_values(flags.FLAGS[flag.name])


def parse_flags(argv: Sequence[str]) -> list[str]:
    """The flags parser of commands that print no usage: a mistake is one line."""
    try:
        return app.parse_flags_with_usage([with_path(argument) for argument in argv])
    except flags.Error as error:
        sys.exit(f"error: {error}")


def with_path(argument: str) -> str:
    """A command line's argument, with the file of a config that it calls gift_jax:NAME.

    Raises:
      flags.Error: there is no config of that name.

    >>> with_path("--workdir=digits")
    '--workdir=digits'
    """
    match = re.fullmatch(r"(--?config=|)gift_jax:([^:]*)(.*)", argument)
    if match is None:
        return argument
    flag, name, options = match.groups()
    files = {path.stem: path for path in pathlib.Path(__file__).parent.glob("*.py")}
    names = sorted(files.keys() - {"__init__", "common"})
    if name not in names:
        raise flags.Error(f"unknown config {name!r}; there are {', '.join(names)}")
    return f"{flag}{files[name]}{options}"
