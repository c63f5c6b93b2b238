"""Several hosts (JAX processes) that run one job together.

Every host runs the same program. The primary host writes products, logs and
results; the others wait for it and read. Hosts agree through JAX's coordination
service, not through devices, so a wait may take as long as it takes. With one host
everything here is free.
"""

import atexit
import contextlib
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax._src import distributed

from gift_jax.runtime.errors import InputError

_PREFIX = "gift_jax/"
_FAILURE = f"{_PREFIX}failure"
# Python handles signals between two waits.
_WAIT_MILLISECONDS = 500
_LINGER_SECONDS = 5.0
_sequence = itertools.count()


def count() -> int:
    """The number of hosts."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def index() -> int:
    """The number of this host, from zero."""
    return jax.process_index() if jax.distributed.is_initialized() else 0


def is_primary() -> bool:
    """Whether this is the host that writes products, logs and results."""
    return index() == 0


def share(n: int) -> range:
    """The contiguous part of range(n) of this host; parts differ by one at most."""
    return range(n * index() // count(), n * (index() + 1) // count())


def devices(local: Sequence[jax.Device]) -> tuple[jax.Device, ...]:
    """All hosts' devices at the places that some have on this host.

    Args:
      local: The first so many of `jax.local_devices()`.

    Returns:
      As many of every host, in the order of hosts, which is the order that pmap
      hands shares of a batch out in.

    Raises:
      ValueError: JAX sees several hosts that did not join.
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
        for host in range(count())
        for device in jax.local_devices(process_index=host)[: len(local)]
    )


def barrier(name: str) -> None:
    """Waits until all hosts are here.

    Args:
      name: Of this place in the program; hosts must arrive in the same order.
    """
    if count() == 1:
        return
    key = f"{_PREFIX}{next(_sequence)}/{name}"
    client = _client()
    client.key_value_set(f"{key}/{index()}", "here")
    for host in range(count()) if is_primary() else ():
        _wait_for(f"{key}/{host}")
    if is_primary():
        client.key_value_set(f"{key}/go", "all here")
    _wait_for(f"{key}/go")


def broadcast(value: Any) -> Any:
    """The primary host's value, on every host.

    Args:
      value: JSON-able; what the other hosts pass does not matter.
    """
    if count() == 1:
        return value
    key = f"{_PREFIX}{next(_sequence)}/value"
    if is_primary():
        _client().key_value_set(key, json.dumps(value))
        return value
    return json.loads(_wait_for(key))


def _client() -> Any:
    # JAX has no public name for it; Orbax takes it from here, too.
    return distributed.global_state.client


def _wait_for(key: str) -> str:
    while (value := _next_value(key)) is None:
        pass
    return value


def _next_value(key: str) -> str | None:
    try:
        return _client().blocking_key_value_get(key, _WAIT_MILLISECONDS)
    except jax.errors.JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" not in str(error):
            raise
    return None


def watch(key: str, react: Callable[[str], None]) -> None:
    """Calls a function in a thread of its own once some host has said something.

    Args:
      key: What to listen for.
      react: Called with what was said.
    """
    is_over = threading.Event()

    def listen() -> None:
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # the service is gone
            while not is_over.is_set():
                message = _next_value(key)
                if message is not None:
                    return react(message)

    thread = threading.Thread(target=listen, daemon=True, name=f"watch {key}")
    thread.start()

    def stop() -> None:
        is_over.set()
        thread.join()

    # A thread that is in JAX while Python ends would abort the process.
    atexit.register(stop)


def say(key: str, message: str) -> None:
    """Tells all hosts that `watch` a key; the first message stands."""
    client = _client()
    try:
        client.key_value_set(key, message)
    except jax.errors.JaxRuntimeError as error:
        if "ALREADY_EXISTS" not in str(error):
            raise


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout_seconds: int = 300,
) -> None:
    """Joins the hosts of a job; before anything else of JAX.

    Without arguments JAX detects them: Cloud TPU, GKE, SLURM, Open MPI.

    Args:
      coordinator_address: "host:port" of process 0.
      num_processes: How many there are.
      process_id: Which of them this is.
      timeout_seconds: How long to wait for the others. After it the process ends
        with an error, as XLA would abort it.

    Raises:
      ValueError: what is missing, or not of the right form.
    """
    given = (coordinator_address, num_processes, process_id)
    if any(value is not None for value in given) and None in given:
        raise InputError(
            "coordinator_address, num_processes and process_id go together, but are "
            f"{coordinator_address!r}, {num_processes!r} and {process_id!r}"
        )
    if coordinator_address and not coordinator_address.rpartition(":")[2].isdigit():
        raise InputError(
            f"coordinator_address is {coordinator_address!r}, expected HOST:PORT"
        )
    too_late = threading.Timer(
        timeout_seconds,
        _too_late,
        args=[
            f"not all of {num_processes or 'the'} processes met at "
            f"{coordinator_address or 'the coordinator'} within {timeout_seconds} s: "
            "start all of them, and check the address, the port and that every "
            "process has another id"
        ],
    )
    too_late.daemon = True
    too_late.start()
    try:
        jax.distributed.initialize(
            *given, initialization_timeout=timeout_seconds + int(_LINGER_SECONDS)
        )
    except ValueError as error:
        if coordinator_address:
            raise
        raise InputError(
            f"no cluster was detected ({error}); give --coordinator_address, "
            "--num_processes and --process_id"
        ) from error
    finally:
        too_late.cancel()
    watch(_FAILURE, _end)


def fail(message: str) -> None:
    """Ends the job on all hosts because this one cannot go on; never returns there.

    The others may be in a collective, which nothing but the end of the process
    interrupts. Does nothing with one host.
    """
    if count() == 1:
        return
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # all may be lost
        say(_FAILURE, json.dumps([index(), message]))
        # The primary host's process runs the service that the others hear it from.
        deadline = time.monotonic() + _LINGER_SECONDS
        others = range(1, count()) if is_primary() else ()
        unaware = [f"{_FAILURE}/{host}" for host in others]
        while unaware and time.monotonic() < deadline:
            unaware = [key for key in unaware if _next_value(key) is None]
        if is_primary():
            time.sleep(1.0)  # for the others to end
    _exit()


def _end(failure: str) -> None:
    host, message = json.loads(failure)
    if host != index():
        print(f"error: process {host} stopped: {message}", file=sys.stderr)
        say(f"{_FAILURE}/{index()}", "heard")
        _exit()


def _too_late(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    _exit()


def _exit() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
