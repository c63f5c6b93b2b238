"""Errors that a user can do something about, and what the command says of them."""

import jax

from gift_jax.pipeline.products import WorkdirError
from gift_jax.runtime import hosts
from gift_jax.train.checkpoint import CheckpointError

EXPECTED = (
    ValueError,
    TypeError,
    OSError,
    ImportError,
    ArithmeticError,
    CheckpointError,
    WorkdirError,
    jax.errors.JaxRuntimeError,
)


def message(error: BaseException) -> str:
    """One message for a user."""
    text = str(error)
    if not isinstance(error, jax.errors.JaxRuntimeError):
        return text
    text = text.strip().splitlines()[0]
    if hosts.count() == 1:
        return text
    return (
        f"the devices of the hosts lost one another ({text}): another process has most "
        "likely died; start all of them again with the same command to go on"
    )
