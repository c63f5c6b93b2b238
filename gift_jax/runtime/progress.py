"""Progress bars, and the record of metrics of a run."""

import contextlib
import json
import os
import pathlib
import time

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar
from tqdm import auto as tqdm  # a notebook's bars, where ipywidgets is installed

from gift_jax.runtime import atomic, hosts

METRICS_FILE = "metrics.jsonl"
# Time between writes of TensorBoard events to the disk.
_FLUSH_SECONDS = 10.0
# tqdm's own variable, which it ignores where `disable` is given.
_ARE_HIDDEN = "TQDM_DISABLE"


class ProgressBar:
    """A bar with rate, time left and the latest metrics, on standard error.

    With several hosts, only the primary shows it.

    Args:
      name: What the bar is called.
      total: Units of work.
      unit: Name of a unit.
      done: Units finished before.
    """

    def __init__(self, name: str, *, total: int, unit: str, done: int = 0) -> None:
        self._bar = tqdm.tqdm(
            desc=name,
            total=total,
            initial=done,
            unit=unit,
            dynamic_ncols=True,
            mininterval=0.5,
            disable=not hosts.is_primary() or _ARE_HIDDEN in os.environ,
        )

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def start(self, done: int) -> None:
        """Sets how many units were done before; the rate is measured from here."""
        self._bar.reset()
        self._bar.initial = self._bar.n = self._bar.last_print_n = done
        self._bar.refresh()

    def update(self, units: int, **metrics: float) -> None:
        """Advances the bar, and shows metrics in place of those shown before."""
        if metrics:
            shown = {name: _shown(value) for name, value in metrics.items()}
            self._bar.set_postfix(shown, refresh=False)
        self._bar.update(units)


def _shown(value: float) -> str:
    """Counts as they are, measurements with four digits."""
    return str(value) if type(value) is int else f"{value:.4g}"


class MetricsWriter:
    """Writes the metrics of a run as JSON lines and as TensorBoard events.

    With several hosts, only the primary writes.

    Args:
      directory: The run's directory.
      finished_epochs: Epochs trained before; lines of later epochs, written before an
        interruption, are dropped.
    """

    def __init__(self, directory: pathlib.Path, *, finished_epochs: int = 0) -> None:
        self._directory = directory
        self._files = contextlib.ExitStack()
        if not hosts.is_primary():
            return
        path = directory / METRICS_FILE
        _drop_lines(path, from_epoch=finished_epochs)
        # Unbuffered, so that closing has nothing left to write.
        self._lines = self._files.enter_context(path.open("ab", buffering=0))
        # Not SummaryWriter: errors in its thread, such as a full disk, would go
        # unnoticed.
        self._events = EventsWriter(str(directory / "events"))
        self._files.callback(self._events.close)
        # Makes TensorBoard hide older events of this epoch and later ones.
        start = SessionLog(status=SessionLog.START)
        self._events.write_event(
            Event(wall_time=time.time(), step=finished_epochs, session_log=start)
        )
        self._flushed = time.monotonic()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        # An error of the block, such as a full disk, must not be masked by the same on
        # closing.
        expected = (OSError,) if any(exception) else ()
        with contextlib.suppress(*expected):
            self._files.close()

    def write(self, epoch: int, **metrics: float) -> None:
        """Writes the metrics of one epoch.

        Raises:
          OSError: they could not be written, such as to a full disk.
        """
        if not hosts.is_primary():
            return
        try:
            self._lines.write(json.dumps({"epoch": epoch, **metrics}).encode() + b"\n")
            now = time.time()
            for name, value in metrics.items():
                summary = scalar(name, value)
                self._events.write_event(
                    Event(wall_time=now, step=epoch, summary=summary)
                )
            if time.monotonic() > self._flushed + _FLUSH_SECONDS:
                self._events.flush()
                self._flushed = time.monotonic()
        except OSError as error:  # which names no path
            path = str(self._directory)
            raise OSError(error.errno, error.strerror, path) from error


def _drop_lines(path: pathlib.Path, *, from_epoch: int) -> None:
    lines = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in lines if _epoch(line) < from_epoch]
    with atomic.replacing(path) as rewritten:
        rewritten.write_text("".join(f"{line}\n" for line in kept))


def _epoch(line: str) -> float:
    try:
        return json.loads(line)["epoch"]
    except (json.JSONDecodeError, KeyError):  # the last line of a killed run
        return float("inf")
