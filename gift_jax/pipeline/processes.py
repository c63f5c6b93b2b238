"""Trains students of a grid on CPUs in several processes, each with its own cores.

A step of a small network does not keep many cores busy: two processes with a core each
train more students per hour than one with two (docs/performance.md).

The processes run `pipeline.worker`. Each is told on its standard input what to do and
which unit of the grid to train next, and answers on its standard output. If its input
ends early, it saves what it has and stops, as at SIGTERM.
"""

import json
import os
import pathlib
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence, Sized
from typing import Any, NamedTuple

import jax
from ml_collections.config_dict import ConfigDict

from gift_jax.pipeline.grid import Shard
from gift_jax.runtime import hosts, preemption
from gift_jax.runtime.cores import SHARE, usable_cores
from gift_jax.runtime.errors import UserError

# Time that a process has to save a checkpoint, within a few steps, before it is killed.
_SECONDS_TO_SAVE = 120
_POLL_SECONDS = 0.2


class Unit(NamedTuple):
    """A part of a grid that one process trains.

    Attributes:
      number: Its index in the `units` of the grid.
      programs: Key of its compiled programs, equal for units that share them.
    """

    number: int
    programs: Any


def count(
    wanted: int, units: Sized, devices: Sequence[jax.Device], *, least_units: int
) -> int:
    """Number of processes that train the units of a grid.

    Args:
      wanted: Largest number of processes.
      units: Units that can be trained at the same time.
      devices: Devices of this host.
      least_units: Least units per process.

    Returns:
      1 except on a single host's CPU; on accelerators students train under vmap.
    """
    is_one_cpu = devices[0].platform == "cpu" and len(devices) == hosts.count() == 1
    if not is_one_cpu:
        return 1
    return max(min(wanted, len(units) // least_units), 1)


def with_company(units: Sequence[Unit], number: int) -> Sequence[Unit]:
    """Drops the last unit where it would train on the cores of one process only.

    Two last units stay: all cores train them faster at the same time than one after the
    other.

    Args:
      units: Units to train in processes.
      number: Number of processes, at least 2.
    """
    return units[:-1] if len(units) % number == 1 else units


def next_unit(waiting: Sequence[Unit], own: Any, of_others: Collection[Any]) -> Unit:
    """The unit that a process trains next, so that few compile the same programs.

    Args:
      waiting: The units to choose from.
      own: Programs of its last unit.
      of_others: Programs of the last units of the other processes.

    Returns:
      The first unit with its own programs, else the first with programs of no other
      process, else the first.
    """

    def cost(unit: Unit) -> int:
        if unit.programs == own:
            return 0
        return 2 if unit.programs in of_others else 1

    return min(waiting, key=cost)


def train(
    grid: tuple[ConfigDict, pathlib.Path, Shard],
    units: Sequence[Unit],
    *,
    number: int,
    on_trained: Callable[[], None],
) -> None:
    """Trains units of a grid in processes of their own, and waits for them.

    Args:
      grid: Arguments of `Grid`; all stages before training are done.
      units: Units of the grid to train.
      number: Number of processes.
      on_trained: Called after every training.

    Raises:
      UserError: an error in one of the processes.
      PreemptedError: this process was asked to stop.
    """
    waiting = _Waiting(units)
    start = pickle.dumps((grid, dict(jax.config.values)))
    workers = [_Worker(start, waiting, number) for _ in range(number)]
    try:
        _wait_for(workers, on_trained)
    finally:
        for worker in workers:
            worker.ask_to_stop()
        for worker in workers:
            worker.wait()


def _wait_for(workers: Sequence["_Worker"], on_trained: Callable[[], None]) -> None:
    while any(worker.is_alive() for worker in workers):
        time.sleep(_POLL_SECONDS)
        _report(workers, on_trained)
    _report(workers, on_trained)


def _report(workers: Sequence["_Worker"], on_trained: Callable[[], None]) -> None:
    """Handles new messages of the processes.

    Raises:
      PreemptedError: this process was asked to stop, as others may have been, too.
      UserError: a message is an error.
    """
    if preemption.requested():
        raise preemption.PreemptedError
    for worker in workers:
        for message in worker.messages():
            if "error" in message:
                raise UserError(message["error"])
            on_trained()


class _Waiting:
    """The units that no process has taken, shared by the threads of all."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._units = list(units)
        self._programs: dict[_Worker, Any] = {}  # of the last that each has taken
        self._lock = threading.Lock()

    def take(self, worker: "_Worker") -> int | None:
        """The number of the next unit of a process; None where there are no more."""
        with self._lock:
            own = self._programs.pop(worker, None)
            if not self._units:
                return None
            unit = next_unit(self._units, own, list(self._programs.values()))
            self._units.remove(unit)
            self._programs[worker] = unit.programs
            return unit.number


class _Worker(threading.Thread):
    """A process, and the thread that gives it work."""

    def __init__(self, start: bytes, waiting: _Waiting, number: int) -> None:
        super().__init__(daemon=True)
        self._waiting = waiting
        self._messages: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gift_jax.pipeline.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(usable_cores() // number),
            # Ctrl-C reaches this process only, which then ends the others.
            start_new_session=True,
        )
        self._start = start
        self.start()

    def run(self) -> None:
        """Sends one unit after the other, and keeps the answers."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(len(self._start).to_bytes(8, "little"))
            self._process.stdin.write(self._start)
            while self._give_next() and self._hear_until_finished():
                pass
        except BrokenPipeError:
            pass  # its exit code says more
        code = self._process.wait()
        if code not in (0, preemption.EXIT_CODE):
            self._messages.put({"error": _what_ended_it(code)})

    def _give_next(self) -> bool:
        assert self._process.stdin is not None
        unit = self._waiting.take(self)
        self._process.stdin.write(json.dumps(unit).encode() + b"\n")
        self._process.stdin.flush()
        return unit is not None

    def _hear_until_finished(self) -> bool:
        """Keeps the answers to a unit; False where the process has ended."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if "finished" in message:
                return True
            self._messages.put(message)
        return False

    def messages(self) -> list[Mapping[str, Any]]:
        """Messages of the process since the last call."""
        return [self._messages.get() for _ in range(self._messages.qsize())]

    def ask_to_stop(self) -> None:
        """Asks the process to save and end, if it still runs."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        """Waits for the process to end, and kills it where that takes too long."""
        try:
            self._process.wait(_SECONDS_TO_SAVE)
        except BaseException as error:  # too long, or a second Ctrl-C
            self._process.kill()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise


def _environment(threads: int) -> dict[str, str]:
    """Environment of a process with so many XLA threads and no progress bars."""
    return {
        **os.environ,
        SHARE: str(max(threads, 1)),
        "TQDM_DISABLE": "1",
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }


def _what_ended_it(code: int) -> str:
    why = "killed, perhaps for lack of memory" if code == -signal.SIGKILL else "ended"
    return (
        f"a process that trained students was {why} (exit code {code}); see what it "
        "says above. The same command goes on; --config.train.processes=1 trains in "
        "one process"
    )
