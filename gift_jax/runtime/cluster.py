"""Joins the hosts of a job, and ends it on all of them.

Their communication in between is in `hosts`.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time

import jax

from gift_jax.runtime import hosts
from gift_jax.runtime.errors import InputError

_FAILURE = "gift_jax/failure"
_LINGER_SECONDS = 5.0
_WAIT_SECONDS = 0.1


def join(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout_seconds: int = 300,
) -> None:
    """Joins the hosts of a job; must be called before anything else of JAX.

    Without arguments JAX detects them: Cloud TPU, GKE, SLURM, Open MPI.

    Args:
      coordinator_address: "host:port" of process 0.
      num_processes: Number of processes.
      process_id: Index of this process.
      timeout_seconds: How long to wait for the others. After that the process ends with
        an error, before XLA would abort it.

    Raises:
      InputError: an argument is missing or malformed, the port is in use, or no cluster
        was detected.
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
    if num_processes is not None and process_id not in range(num_processes):
        raise InputError(
            f"process_id is {process_id}, expected 0 to {num_processes - 1} for "
            f"{num_processes} processes"
        )
    if coordinator_address and process_id == 0:
        _check_free(int(coordinator_address.rpartition(":")[2]))
    too_late = threading.Timer(
        timeout_seconds,
        _too_late,
        args=[
            f"not all of {num_processes or 'the'} processes met at "
            f"{coordinator_address or 'the coordinator'} within {timeout_seconds} s: "
            "start all of them, and check the address, the port, that all have the "
            "same num_processes and every one another id"
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
    hosts.watch(_FAILURE, _end)


def _check_free(port: int) -> None:
    """Raises InputError for a port in use, on which JAX would crash."""
    with socket.socket() as listener:
        # Connections left over from an earlier start on this port do no harm.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except (OSError, OverflowError) as error:
            raise InputError(
                f"process 0 cannot listen on port {port}: {error}; choose another for "
                "coordinator_address"
            ) from error


def fail(message: str, code: int = 1) -> None:
    """Ends the job on all hosts because this one cannot go on.

    Never returns with several hosts, and does nothing with one. The other hosts may be
    in a collective, which only the end of the process interrupts.

    Args:
      message: The reason, shown on the other hosts.
      code: Exit code of all processes.
    """
    if hosts.count() == 1:
        return
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # the service may be gone
        hosts.say(_FAILURE, json.dumps([hosts.index(), message, code]))
        # The primary's process runs the service through which the others learn of it.
        deadline = time.monotonic() + _LINGER_SECONDS
        others = range(1, hosts.count()) if hosts.is_primary() else ()
        unaware = [f"{_FAILURE}/{host}" for host in others]
        while unaware and time.monotonic() < deadline:
            time.sleep(_WAIT_SECONDS)
            unaware = [key for key in unaware if hosts.said(key) is None]
        if hosts.is_primary():
            time.sleep(1.0)  # for the others to end
    _exit(code)


def _end(failure: str) -> None:
    host, message, code = json.loads(failure)
    if host != hosts.index():
        print(f"error: process {host} stopped: {message}", file=sys.stderr)
        hosts.say(f"{_FAILURE}/{hosts.index()}", "heard")
        if hosts.is_primary():
            time.sleep(2 * hosts.WATCH_SECONDS)  # for the others to hear it from here
        _exit(code)


def _too_late(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    _exit(1)


def _exit(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
