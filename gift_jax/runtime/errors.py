"""Errors that are meant for the user, and their messages.

Any other error than those in `EXPECTED` is a bug, and keeps its traceback.
"""

import jax


class UserError(Exception):
    """An error that the user can do something about; the message says what."""


class InputError(UserError, ValueError):
    """A setting, an argument or a file that cannot be used."""


class UnknownNameError(InputError):
    """A name that is none of the known ones."""


class MissingPackageError(UserError, ImportError):
    """An optional package that is needed and not installed."""


# Besides errors raised for the user: those of disk, network, devices and memory.
EXPECTED = (UserError, OSError, jax.errors.JaxRuntimeError, MemoryError)


# Prefixes of XLA's errors that another host cannot have caused.
_OF_THIS_PROGRAM = ("UNIMPLEMENTED", "INVALID_ARGUMENT")


def pip_install(extra: str) -> str:
    """The command that installs an extra of pyproject.toml, for messages.

    >>> pip_install("torch")
    'pip install -e ".[torch]" in the clone'
    """
    return f'pip install -e ".[{extra}]" in the clone'


def message(error: BaseException) -> str:
    """The message of an error for the user."""
    text = str(error)
    if isinstance(error, MemoryError):
        return f"not enough memory ({text or 'none is left'})"
    if not isinstance(error, jax.errors.JaxRuntimeError):
        return text
    text = text.strip().partition("\n")[0] or type(error).__name__
    if text.startswith("RESOURCE_EXHAUSTED"):
        return (
            f"the memory of the devices does not suffice ({text}): see "
            "`python -m gift_jax.plan`, and set a smaller train.students_at_once, "
            "train.batch_size or teacher.batch_size"
        )
    is_own = text.startswith(_OF_THIS_PROGRAM)
    if is_own or not jax.distributed.is_initialized():
        return text
    return (
        f"the devices of the hosts lost one another ({text}): another process has "
        "ended, or did not answer in time; see what it says, and start all of them "
        "again with the same command to go on"
    )
