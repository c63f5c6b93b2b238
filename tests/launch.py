"""Starts the real command, in one process or in several that run one job."""

import itertools
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Compilation is most of the time of the tests. Without LLVM's optimization it is less,
# and without XLA's emitters by MLIR two thirds of that.
QUICKLY = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
# Of `jax.jit`, where a test is about what users' programs compute.
AS_USERS = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}

# A job of seconds. SGD, as the direction of Adam's first steps is that of rounding.
SMALL_JOB = (
    "--config=configs/digits.py:teacher=conv1,student=conv1,distill=rded,ipc=2",
    "--config.teacher.width=8",
    "--config.teacher.epochs=2",
    "--config.teacher.min_accuracy=0",
    "--config.distilled.rded.images_per_class=4",
    "--config.augment.diffaug=flip",
    "--config.relabel.views=4",
    "--config.student.width=8",
    "--config.loss.name=gift",
    "--config.optimizer.name=sgd",
    "--config.train.batch_size=8",
)


class Processes:
    """The processes of one job; all are killed where the block ends.

    Args:
      arguments: Of the command.
      logs: Directory for what they print.
      processes: How many.
      devices: Virtual CPU devices of each.
      module: The command, or a study.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        logs: pathlib.Path,
        *,
        processes: int = 1,
        devices: int = 1,
        module: str = "gift_jax.main",
    ) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {QUICKLY}",
            "JAX_PLATFORMS": "cpu",
        }
        together = []
        if processes > 1:
            together = [
                f"--coordinator_address=localhost:{free_port()}",
                f"--num_processes={processes}",
            ]
        self._logs = [logs / f"{i}.log" for i in range(processes)]
        self.processes = []
        for number, log in enumerate(self._logs):
            own = [f"--process_id={number}"] if processes > 1 else []
            with log.open("w") as output:
                self.processes.append(
                    subprocess.Popen(
                        [
                            *(sys.executable, "-m", module),
                            *(*arguments, *together, *own),
                        ],
                        cwd=ROOT,
                        env=environment,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                )

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def wait(self, timeout: float = 600) -> list[int]:
        """Waits for all of them; their exit codes."""
        deadline = time.monotonic() + timeout
        for process in self.processes:
            try:
                process.wait(deadline - time.monotonic())
            except subprocess.TimeoutExpired:
                raise AssertionError(f"still running:\n{self.output()}") from None
        return [process.returncode for process in self.processes]

    def wait_until(self, condition: Callable[[], bool], timeout: float = 240) -> None:
        """Waits for something that the processes do."""
        deadline = time.monotonic() + timeout
        while not condition():
            running = all(process.poll() is None for process in self.processes)
            if time.monotonic() > deadline or not running:
                raise AssertionError(f"it never came to that:\n{self.output()}")
            time.sleep(0.02)

    def output(self, number: int | None = None) -> str:
        """What one of them, or all, have printed."""
        logs = self._logs if number is None else [self._logs[number]]
        return "\n".join(log.read_text() for log in logs)


def run(
    arguments: Sequence[str],
    logs: pathlib.Path,
    *,
    processes: int = 1,
    devices: int = 1,
) -> str:
    """Runs a job to its end; what it printed."""
    with Processes(arguments, logs, processes=processes, devices=devices) as job:
        codes = job.wait()
        assert codes == [0] * processes, job.output()
        return job.output()


def terminate(process: subprocess.Popen) -> None:
    """Sends SIGTERM."""
    process.send_signal(signal.SIGTERM)


# Below the ports that the system gives out, and each worker's own: one that is free
# remains so until a job listens on it.
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
# Another test session on this machine begins elsewhere.
_ports = itertools.count(20_000 + 500 * _worker + os.getpid() % 400)


def free_port() -> int:
    """A port of this machine that nobody listens on, another one every time."""
    for port in _ports:
        with socket.socket() as listener:
            try:
                listener.bind(("localhost", port))
            except OSError:
                continue
            return port
    raise AssertionError("unreachable")
