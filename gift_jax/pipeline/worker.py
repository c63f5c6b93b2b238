"""A process that trains units of a grid, as `pipeline.processes` tells it to."""

import json
import os
import pickle
import queue
import signal
import sys
import threading
import time
from typing import IO, Any

import jax

from gift_jax.pipeline.grid import Grid
from gift_jax.runtime import allocator, errors, logs, preemption

# Seconds for a step to end once the process that waits for it is gone.
_GRACE = 5.0


def main() -> int:
    """Trains the units named on standard input, until it says null or ends.

    Returns:
      The exit code.
    """
    answers = _standard_output()
    allocator.keep_freed_memory()  # workers are for CPUs
    logs.show("WARNING")
    orders = _standard_input()
    size = int.from_bytes(orders.read(8), "little")
    arguments, settings = pickle.loads(orders.read(size))
    for name, value in settings.items():
        if jax.config.values[name] != value:
            jax.config.update(name, value)
    preemption.listen()

    def answer(**message: Any) -> None:
        print(json.dumps(message), file=answers, flush=True)

    try:
        grid = Grid(*arguments)
        numbers = _read_in_background(orders)
        while (number := numbers.get()) is not None:
            for _ in grid.train(
                grid.units[number], on_trained=lambda: answer(trained=1)
            ):
                pass
            answer(finished=number)
    except preemption.PreemptedError:
        return preemption.EXIT_CODE
    except errors.EXPECTED as error:
        answer(error=errors.message(error))
        return preemption.EXIT_CODE
    return 0


def _standard_input() -> IO[bytes]:
    """Not `sys.stdin`: Python closes it on exit, and aborts if a thread reads it."""
    return os.fdopen(os.dup(0), "rb")


def _standard_output() -> IO[str]:
    """Standard output for answers only; all else is printed to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _read_in_background(lines: IO[bytes]) -> "queue.SimpleQueue[int | None]":
    """The numbers on the lines; if they end before null, their writer has ended.

    A writer that was killed may be started again at once, and must not find this
    process in its way.
    """
    numbers: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    writer = os.getppid()

    def read() -> None:
        for line in lines:
            numbers.put(json.loads(line))
            if line.strip() == b"null":
                return
        os.kill(os.getpid(), signal.SIGTERM)
        numbers.put(None)
        while os.getppid() == writer:
            time.sleep(0.1)
        time.sleep(_GRACE)
        os._exit(preemption.EXIT_CODE)  # no signal is handled while a program compiles

    threading.Thread(target=read, daemon=True).start()
    return numbers


if __name__ == "__main__":
    sys.exit(main())
