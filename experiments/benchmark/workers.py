"""Contenders in processes of their own, driven in turn over pipes."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

GEMM_SIZE = 2048  # side of the square matrices whose product is the peak
# `make(contender, workload)` returns `run()`, which returns the steps that it took.
Run = Callable[[], int]
Make = Callable[[str, str], Run]


class WorkerError(RuntimeError):
    """A worker ended before it answered."""


def serve(make: Make) -> None:
    """The loop of a worker: reads a request per line, writes seconds per step.

    The first request for a contender makes it and runs it once without timing it, so
    that nothing is compiled or allocated in a measurement. The contenders of one
    workload are kept until the next workload.
    """
    answers = own_stdout()
    made: dict[str, Run] = {}
    current = ""
    for line in sys.stdin:
        request = json.loads(line)
        if request["workload"] != current:
            made.clear()
            current = request["workload"]
        name = request["contender"]
        if name not in made:
            made[name] = make(name, current)
            made[name]()
        started = time.perf_counter()
        steps = made[name]()
        seconds = time.perf_counter() - started
        print(json.dumps(seconds / steps), file=answers, flush=True)


def own_stdout() -> TextIO:
    """The pipe of answers; what libraries print goes to stderr instead."""
    answers, sys.stdout = sys.stdout, sys.stderr
    return answers


class Worker:
    """A process that runs contenders when it is told to.

    Args:
        module: Its main module, which calls `serve`.
        *arguments: Arguments of its command line.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self._module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *exception: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def seconds_per_step(self, contender: str, workload: str) -> float:
        """Runs a contender once.

        Raises:
            WorkerError: the process ended; why stands in its output above.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            print(
                json.dumps({"contender": contender, "workload": workload}),
                file=stdin,
                flush=True,
            )
            return float(stdout.readline())
        except (BrokenPipeError, ValueError) as error:
            raise WorkerError(
                f"{self._module} ended while it ran {contender!r} on {workload!r}"
            ) from error
