"""Several hosts (JAX processes) that run one job together.

`cluster` joins and ends them. Every host runs the same program. The primary host writes
products, logs and results; the others wait for it and read. Hosts agree through JAX's
coordination service, not through devices, so a wait has no time limit. With one host
everything here is free.
"""

import atexit
import contextlib
import functools
import itertools
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax._src import distributed

from gift_jax.runtime.errors import InputError

_PREFIX = "gift_jax/"
# Waits are short, as Python handles signals only between two of them.
_WAIT_MILLISECONDS = 500
_WAIT_SECONDS = 0.1
WATCH_SECONDS = 0.5
_SEEN_WITHIN_SECONDS = 60.0
_POLL_SECONDS = 1.0
# Number of differing settings to show.
_SHOWN = 10
# Counts of messages to all hosts and of meetings of all, the same on every host.
_sequence = itertools.count()
_meetings = 0
_Found = TypeVar("_Found")


def count() -> int:
    """The number of hosts."""
    # Not `jax.process_count`: it starts the devices, before which hosts compare
    # settings.
    return distributed.global_state.num_processes or 1


def index() -> int:
    """The number of this host, from zero."""
    return distributed.global_state.process_id or 0


def is_primary() -> bool:
    """Whether this is the host that writes products, logs and results."""
    return index() == 0


def share(n: int, host: int | None = None) -> range:
    """A host's contiguous part of range(n); sizes of parts differ by at most one.

    Args:
      n: Length of the whole range.
      host: Index of the host; by default that of this one.
    """
    host = index() if host is None else host
    return range(n * host // count(), n * (host + 1) // count())


def devices(local: Sequence[jax.Device]) -> tuple[jax.Device, ...]:
    """Devices of all hosts, at the same places as some of this host.

    Args:
      local: The first few of `jax.local_devices()`, or all.

    Returns:
      The same number of devices of every host, in the order of hosts, in which pmap
      hands out the shares of a batch.

    Raises:
      InputError: JAX sees several hosts that did not join.
    """
    if count() != jax.process_count():
        raise InputError(
            f"JAX sees {jax.process_count()} processes: start the command on all of "
            "them with --distributed"
        )
    if count() == 1:
        return tuple(local)
    return tuple(
        device
        for process in _process_indices()
        for device in jax.local_devices(process_index=process)[: len(local)]
    )


@functools.cache
def _process_indices() -> tuple[int, ...]:
    """JAX's process index of each host, which differs from its number on some TPUs."""
    key = f"{_PREFIX}process"
    _client().key_value_set(f"{key}/{index()}", str(jax.process_index()))
    return tuple(int(_wait_for(f"{key}/{host}")) for host in range(count()))


def barrier(name: str) -> None:
    """Waits until all hosts are here.

    Args:
      name: Name of this place in the program; hosts must reach places in the same
        order.
    """
    on_any(name, flag=False)


def on_any(name: str, *, flag: bool) -> bool:
    """Whether a flag is set on any host; waits until all hosts are here.

    Args:
      name: See `barrier`.
      flag: Flag of this host.
    """
    global _meetings
    if count() == 1:
        return flag
    key = _next_key("any")
    _meetings += 1
    client = _client()
    client.key_value_set(f"{key}/{index()}", json.dumps([name, flag]))
    if is_primary():
        said = [json.loads(_wait_for(f"{key}/{host}")) for host in range(count())]
        if len(places := sorted({place for place, _ in said})) > 1:
            raise RuntimeError(f"hosts are at different places: {places}")
        # Hosts that are here have read all that was said up to the meeting before.
        client.key_value_delete(_said_before_meeting(_meetings - 1))
        client.key_value_set(f"{key}/go", json.dumps(any(its for _, its in said)))
    return json.loads(_wait_for(f"{key}/go"))


def broadcast(value: Any) -> Any:
    """The primary host's value, on every host.

    Args:
      value: JSON-able; what the other hosts pass does not matter.
    """
    if count() == 1:
        return value
    key = _next_key("value")
    if is_primary():
        _client().key_value_set(key, json.dumps(value))
        return value
    return json.loads(_wait_for(key))


def seen(look: Callable[[], _Found | None]) -> _Found | None:
    """Waits for what another host has written: a network file system may show it late.

    Args:
      look: Finds it, or returns None.

    Returns:
      What was found, or None after a minute.
    """
    deadline = time.monotonic() + _SEEN_WITHIN_SECONDS
    while (found := look()) is None and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return found


def _next_key(what: str) -> str:
    """The key of what hosts say next, the same on all of them."""
    return f"{_said_before_meeting(_meetings + 1)}/{next(_sequence)}/{what}"


def _said_before_meeting(number: int) -> str:
    """The prefix of keys of a meeting, and of what is said since the one before it."""
    return f"{_PREFIX}{number}"


def _client() -> Any:
    # JAX has no public name for it; Orbax takes it from here, too.
    return distributed.global_state.client


def _wait_for(key: str) -> str:
    # A call that timed out stays with the service forever, so there is only one.
    try:
        return _client().blocking_key_value_get(key, _WAIT_MILLISECONDS)
    except jax.errors.JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" not in str(error):
            raise
    while (value := said(key)) is None:
        time.sleep(_WAIT_SECONDS)
    return value


def watch(key: str, react: Callable[[str], None]) -> None:
    """Calls a function, in a thread of its own, once some host has said something.

    Args:
      key: Key to listen to.
      react: Called with what was said.
    """
    is_over = threading.Event()

    def listen() -> None:
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # the service is gone
            while not is_over.wait(WATCH_SECONDS):
                message = said(key)
                if message is not None:
                    return react(message)

    thread = threading.Thread(target=listen, daemon=True, name=f"watch {key}")
    thread.start()

    def stop() -> None:
        is_over.set()
        thread.join()

    # A thread that is in JAX while Python ends would abort the process.
    atexit.register(stop)


def said(key: str) -> str | None:
    """What has been said under a key, or None."""
    try:
        return _client().key_value_try_get(key)
    except jax.errors.JaxRuntimeError as error:
        if "NOT_FOUND" not in str(error):
            raise
    return None


def say(key: str, message: str) -> None:
    """Tells all hosts that `watch` a key; only the first message counts."""
    client = _client()
    try:
        client.key_value_set(key, message)
    except jax.errors.JaxRuntimeError as error:
        if "ALREADY_EXISTS" not in str(error):
            raise


def require_equal(
    settings: Callable[[], Mapping[str, Any]], *, name: str = "settings"
) -> None:
    """Compares the settings of all hosts, and the number of hosts that each knows of.

    Hosts with different settings would wait for one another forever. The first call
    must come right after `cluster.join`.

    Args:
      settings: Returns JSON-able values by the names to show; not called with one host.
      name: What the settings are called in the message.

    Raises:
      InputError: on the primary host, if settings differ; the message names them.
    """
    if count() == 1:
        return
    found = {"number of processes": count(), **settings()}
    key = _next_key(name)
    _client().key_value_set(f"{key}/{index()}", json.dumps(found))
    if not is_primary():
        _wait_for(f"{key}/equal")
        return
    ours = json.loads(json.dumps(found))
    different = [
        f"  {one}: {ours.get(one)!r} on process 0, {theirs.get(one)!r} on {host}"
        for host in range(1, count())
        for theirs in [json.loads(_wait_for(f"{key}/{host}"))]
        for one in sorted(ours.keys() | theirs.keys())
        if ours.get(one) != theirs.get(one)
    ]
    if different:
        raise InputError(
            f"the processes have different {name}:\n" + "\n".join(different[:_SHOWN])
        )
    _client().key_value_set(f"{key}/equal", "")


def compiled_together(function: Callable) -> Callable:
    """A mapped function that no host runs before all have compiled it.

    Its collectives on CPUs (Gloo) give up after 30 s, and compiling can take that long
    on a busy host. With one host it is the function itself.
    """
    if count() == 1:
        return function
    compiled = set()

    def call(*arguments: Any) -> Any:
        leaves, structure = jax.tree.flatten(arguments)
        program = (structure, *((np.shape(leaf), leaf.dtype) for leaf in leaves))
        if program not in compiled:
            function.lower(*arguments).compile()  # type: ignore[attr-defined]
            compiled.add(program)
            barrier("compiled")
        return function(*arguments)

    return call
