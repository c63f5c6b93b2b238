"""Weights of networks on disk, with Orbax.

Every host has all weights. To Orbax each host is the only one: the primary saves, and
all hosts read what it saved; states of recoveries are saved by each host.
"""

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from gift_jax.runtime.errors import InputError, UserError

Variables = dict[str, Any]

_SHOWN = 10


class CheckpointError(UserError, RuntimeError):
    """A checkpoint cannot be saved, or no checkpoint can be read."""


class CheckpointMismatchError(InputError):
    """A checkpoint does not fit the model or the optimizer it is restored into."""


def alone() -> ocp.options.MultiprocessingOptions:
    """Makes Orbax work without the other hosts."""
    own = jax.process_index()  # Orbax's number of this process, which may not be ours
    return ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own})


def reason(error: Exception) -> str:
    """The message of an error, without the middle of TensorStore's long chains."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = lines[0]
    return text if len(text) < 250 else f"{text[:80]} ... {text[-160:]}"


def save_variables(path: pathlib.Path, variables: Variables) -> None:
    """Writes a network's parameters and batch statistics, in place of what is there.

    Raises:
      CheckpointError: they could not be saved.
    """
    try:
        # A thread that makes the directory would also signal the other hosts, whose own
        # may not be there yet; and if it fails, Orbax would wait five minutes for it.
        at_once = ocp.AsyncOptions(create_directories_asynchronously=False)
        with ocp.StandardCheckpointer(
            async_options=at_once, multiprocessing_options=alone()
        ) as checkpointer:
            checkpointer.save(path.resolve(), jax.device_get(variables), force=True)
    except Exception as error:
        raise CheckpointError(
            f"the weights could not be saved in {path}: {reason(error)}"
        ) from error


def load_variables(path: pathlib.Path, *, like: Any) -> Variables:
    """Reads what `save_variables` wrote, as NumPy arrays.

    Args:
      path: The directory that was written.
      like: Variables, or their shapes, of the model they must fit.

    Raises:
      CheckpointMismatchError: names or shapes differ.
    """
    with ocp.StandardCheckpointer(multiprocessing_options=alone()) as checkpointer:
        variables = checkpointer.restore(path.resolve())
    # Orbax itself compares shapes for some kinds of arrays only.
    check_shapes(variables, like=like, origin=str(path))
    return variables


def check_shapes(variables: Variables, *, like: Any, origin: str) -> None:
    """Refuses variables that are not those of a model.

    Args:
      variables: Variables that were read.
      like: Variables, or their shapes, of the model they must fit.
      origin: Where they were read from.

    Raises:
      CheckpointMismatchError: names or shapes differ; the message lists them.
    """
    found, expected = _shapes(variables), _shapes(like)
    differences = [
        f"{name}: stored {found.get(name)}, expected {expected.get(name)}"
        for name in sorted(found.keys() | expected.keys())
        if found.get(name) != expected.get(name)
    ]
    if differences:
        more = len(differences) - _SHOWN
        raise CheckpointMismatchError(
            f"the weights in {origin} do not fit this model:\n  "
            + "\n  ".join(differences[:_SHOWN])
            + (f"\n  and {more} more" if more > 0 else "")
        )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
