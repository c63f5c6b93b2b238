"""One network in one dtype on one device: a process that measures it, and its rows."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from experiments.benchmark import workers
from experiments.benchmark.workloads import WORKLOADS, Workload

# Seconds of all rounds of a row, after which no other round begins.
_MOST_SECONDS = 20.0
MATMUL = "matrix product"
# A row of the table, as JSON.
Row = dict[str, Any]

# The first workload of every network.
_BY_NETWORK = {w.network: w for w in reversed(WORKLOADS.values())}
NETWORKS = tuple(_BY_NETWORK)[::-1]


@dataclasses.dataclass(frozen=True)
class Case:
    """What a process measures.

    Attributes:
        network: One of `NETWORKS`.
        dtype: Type of activations, "float32" or "bfloat16".
        students: How many train at once, one row for each number.
        steps: Steps of an epoch.
        rounds: How often each is timed.
        test_images: Images of an evaluation.
        width: Width of ConvNets; None stands for the official one.
        profile: Folder for traces; None makes none.
        compile_modes: Modes of `torch.compile`.
    """

    network: str
    dtype: str
    students: tuple[int, ...]
    steps: int
    rounds: int
    test_images: int
    width: int | None = None
    profile: str | None = None
    compile_modes: tuple[str, ...] = ()

    @property
    def workload(self) -> Workload:
        """The network and its data."""
        return dataclasses.replace(
            _BY_NETWORK[self.network],
            steps=self.steps,
            dtype=self.dtype,
            width=self.width if self.network.startswith("conv") else None,
        )

    def row(self, by: str, what: str, **found: Any) -> Row:
        """A row, whatever was found."""
        workload = self.workload
        return {
            "network": self.network,
            "image_size": workload.image_size,
            "batch_size": workload.batch_size,
            "steps": self.steps,
            "width": workload.width,
            "dtype": self.dtype,
            "by": by,
            "what": what,
            **found,
        }

    def times(self, run: Callable[[], object]) -> list[float]:
        """Seconds of every round; fewer rounds where they take long.

        Args:
            run: Returns when the device is done.
        """
        seconds: list[float] = []
        while len(seconds) < self.rounds and sum(seconds) <= _MOST_SECONDS:
            began = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - began)
        return seconds

    def timed(
        self,
        by: str,
        what: str,
        seconds: list[float],
        *,
        images: int,
        flops: float | None = None,
        peak: float | None = None,
        **found: Any,
    ) -> Row:
        """A row with what follows from the times.

        Args:
            by: Whose program it is.
            what: What the program does.
            seconds: Seconds of every round.
            images: Images in these seconds, summed over the students of a step.
            flops: Useful operations in these seconds.
            peak: Operations per second of a matrix product of that dtype.
            **found: Whatever else was found.
        """
        median = float(np.median(seconds))
        return self.row(
            by,
            what,
            seconds=seconds,
            ms=1e3 * median,
            images_per_second=images / median,
            of_peak=flops / median / peak if flops and peak else None,
            **found,
        )


def first_line(error: Exception) -> str:
    """What an error says, short enough for a table."""
    text = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {text[0][:200]}"


def serve(functions: Mapping[str, Callable[..., Iterable[Row]]]) -> None:
    """The whole of a process that `rows_of` starts: writes one row per line.

    Args:
        functions: Functions of a case and keyword arguments, by name.
    """
    answers = workers.own_stdout()
    name, case, arguments = json.loads(sys.stdin.readline())
    for row in functions[name](Case(**case), **arguments):
        print(json.dumps(row), file=answers, flush=True)


def rows_of(
    case: Case, module: str, name: str, environment: Mapping[str, str], **arguments: Any
) -> Iterator[Row]:
    """Starts a process for some rows, and waits for its end.

    Args:
        case: What to measure.
        module: The main module of the process, which calls `serve`.
        name: Name of the function there.
        environment: Variables besides those of this process.
        **arguments: Keyword arguments of the function.

    Yields:
        The rows, as they are found; one with an error where the process fails.
    """
    with subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TQDM_DISABLE": "1", **environment},
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        with process.stdin as stdin:
            print(json.dumps([name, dataclasses.asdict(case), arguments]), file=stdin)
        yield from map(json.loads, process.stdout)
    if process.returncode:
        reason = f"ended with code {process.returncode}, see its output"
        yield case.row(module.rpartition(".")[2], name, error=reason)
