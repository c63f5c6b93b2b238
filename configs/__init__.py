"""One config per dataset, over the defaults of `common`; and published `protocols`.

The folder is installed as `gift_jax.configs`.
"""

import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags
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
        return parsed(argv)
    except flags.Error as error:
        sys.exit(f"error: {error}")


def parsed(argv: Sequence[str]) -> list[str]:
    """What a command line has besides flags, with the config file read.

    Raises:
      flags.Error: a mistake in a flag or in the config file, in one line.
    """
    try:
        rest = flags.FLAGS([with_path(argument) for argument in argv])
        config = flags.FLAGS["config"].value
        _ = config and config.is_locked  # raises now if the file cannot be read
        return rest
    except flags.Error as error:
        message = _last_line(error)
    except (AttributeError, KeyError) as error:
        message = _unknown_field(error, argv)
    except ImportError as error:
        message = f"the config file cannot be imported: {error}"
    except OSError as error:
        last = str(error).splitlines()[-1].strip()
        message = f"the config file cannot be read: {last}"
    raise flags.Error(message)


def _last_line(error: flags.Error) -> str:
    """The message itself, as errors of config files include their traceback."""
    section = re.search(
        r"config\.(\w+).*Failed to parse '(.*)' as a ConfigDict", str(error)
    )
    if section:
        name, value = section.groups()
        return f"config.{name} is a section: did you mean --config.{name}.name={value}?"
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1] if "Traceback" in str(error) else str(error)


def _unknown_field(error: Exception, argv: Sequence[str]) -> str:
    """Names the argument with the unknown field, and the nearest known field."""
    text = str(error)
    match = re.search(r'Did you mean "(\w+)" instead of "(\w+)"', text)
    if match is None:
        return f"unknown field of the config: {text}"
    nearest, field = match.groups()
    arguments = [a for a in argv if re.match(rf"-.*\.{field}\b", a)]
    where = f" in {arguments[0]}" if arguments else ""
    return f"unknown field {field!r} of the config{where} (did you mean {nearest!r}?)"


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
