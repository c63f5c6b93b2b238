"""SIGTERM, by which a scheduler announces that it will end a process.

The job goes on to the next place from which it can be resumed, a few steps or a chunk
of soft labels ahead, saves, and ends with an exit code of its own; the same command
resumes it later.
"""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from gift_jax.runtime import hosts

_log = logging.getLogger(__name__)

# EX_TEMPFAIL of sysexits.h: try again later.
EXIT_CODE = 75

_KEY = "gift_jax/preemption"
_requested = threading.Event()


class PreemptedError(Exception):
    """The job was asked to stop, and has saved what it needs to go on."""


def listen() -> None:
    """Takes note of SIGTERM from here on, on this host and the others."""
    # Replaces the handler that JAX installs with several hosts.
    signal.signal(signal.SIGTERM, _on_signal)
    if hosts.count() > 1:
        hosts.watch(_KEY, lambda message: _note())


def _on_signal(number: int, frame: FrameType | None) -> None:
    # In a thread, as the handler may interrupt code that holds the lock of a log.
    threading.Thread(target=_note, daemon=True).start()


def _note() -> None:
    if _requested.is_set():
        return
    _requested.set()
    _log.warning("asked to stop (SIGTERM): saving after this step or chunk")
    if hosts.count() > 1:
        hosts.say(_KEY, str(hosts.index()))


def requested() -> bool:
    """Whether this host knows that some host was asked to stop.

    Hosts learn of it at different times; for loops that they run at their own pace.
    """
    return _requested.is_set()


def agreed() -> bool:
    """Whether all hosts stop here; every host calls it, and gets the same answer."""
    return hosts.broadcast(requested())


def check() -> None:
    """Stops all hosts here if one was asked to; every host calls it.

    Raises:
      PreemptedError: on all of them.
    """
    if agreed():
        raise PreemptedError


@contextlib.contextmanager
def together(name: str) -> Iterator[None]:
    """A block that all hosts run, each at its own pace; they wait at its end.

    Args:
      name: Name of this place in the program, see `hosts.barrier`.

    Raises:
      PreemptedError: on all hosts, if the block of any of them raised it.
    """
    is_stopped = False
    try:
        yield
    except PreemptedError:
        is_stopped = True
    if hosts.on_any(name, flag=is_stopped):
        raise PreemptedError
