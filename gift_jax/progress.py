"""Progress bars, and the record of metrics of a run."""

import json
import os
import pathlib
from types import TracebackType

import tqdm
from tensorboardX import SummaryWriter

from gift_jax import hosts, workdir

METRICS_FILE = "metrics.jsonl"


class ProgressBar:
    """A bar with rate, time left and the latest metrics, on standard error.

    Of several hosts the primary shows it.

    Args:
      name: What is going on.
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
            disable=not hosts.is_primary(),
        )

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()

    def update(self, units: int, **metrics: float) -> None:
        """Moves the bar on and shows metrics."""
        shown = {name: f"{value:.4g}" for name, value in metrics.items()}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(units)


class MetricsWriter:
    """Writes the metrics of a run as JSON lines and as TensorBoard events.

    Of several hosts the primary writes; the others leave the file alone.

    Args:
      directory: The run's directory.
      finished_epochs: Lines of later epochs, written before an interruption,
        are dropped.
    """

    def __init__(self, directory: pathlib.Path, *, finished_epochs: int = 0) -> None:
        path = pathlib.Path(os.devnull)
        if hosts.is_primary():
            path = directory / METRICS_FILE
            _drop_lines(path, from_epoch=finished_epochs)
        self._file = path.open("a")
        self._events = SummaryWriter(
            str(directory),
            purge_step=finished_epochs,
            flush_secs=10,
            write_to_disk=hosts.is_primary(),
        )

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        self._events.close()

    def write(self, epoch: int, **metrics: float) -> None:
        """Writes the metrics of one epoch.

        Raises:
          OSError: they could not be written, such as to a full disk.
        """
        try:
            self._file.write(json.dumps({"epoch": epoch, **metrics}) + "\n")
            self._file.flush()
        except OSError as error:  # tells no path
            raise OSError(error.errno, error.strerror, self._file.name) from error
        for name, value in metrics.items():
            self._events.add_scalar(name, value, epoch)


def _drop_lines(path: pathlib.Path, *, from_epoch: int) -> None:
    lines = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in lines if _epoch(line) < from_epoch]
    with workdir.replacing(path) as rewritten:
        rewritten.write_text("".join(f"{line}\n" for line in kept))


def _epoch(line: str) -> float:
    try:
        return json.loads(line)["epoch"]
    except (json.JSONDecodeError, KeyError):  # the last line of a killed run
        return float("inf")
