"""What a worker answers to whoever tells it what to do."""

import os
import pathlib
import pickle
import subprocess
import sys
import time

import pytest

from gift_jax.pipeline.grid import Shard
from gift_jax.runtime import preemption
from tests import launch
from tests.pipeline.test_job import small_config


def start(config, directory):
    worker = subprocess.Popen(
        [sys.executable, "-m", "gift_jax.pipeline.worker"],
        cwd=launch.ROOT,
        env={**os.environ, "XLA_FLAGS": launch.QUICKLY},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=False,
    )
    told = pickle.dumps(((config, directory, Shard()), {}))
    worker.stdin.write(len(told).to_bytes(8, "little") + told)
    return worker


def test_an_error_is_answered(tmp_path):
    worker = start(small_config(distilled__path="absent.npz"), tmp_path)
    answer, _ = worker.communicate()
    assert b'{"error": "distilled.path is absent.npz, which does not exist"}' in answer
    assert worker.returncode == preemption.EXIT_CODE


@pytest.mark.parametrize("end", [b"null\n", b""])
def test_without_work_it_ends(tmp_path, end):
    worker = start(small_config(), tmp_path)
    answer, _ = worker.communicate(end)
    assert (answer, worker.returncode) == (b"", 0)


@pytest.mark.slow
def test_it_does_not_outlive_a_writer_that_was_killed(tmp_path):
    """Also where it is deep in a program that hears no signal."""
    pid = tmp_path / "pid"
    worker = (
        "import os, pathlib, signal; from gift_jax.pipeline import worker; "
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); "
        "worker._read_in_background(worker._standard_input()); signal.pause()"
    )
    writer = (
        "import subprocess, sys, time; "
        f"subprocess.Popen([sys.executable, '-c', {worker!r}], stdin=subprocess.PIPE); "
        "time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", writer], cwd=launch.ROOT)
    while not (pid.exists() and pid.read_text()):
        time.sleep(0.1)
    time.sleep(5)  # until it reads
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while pathlib.Path(f"/proc/{pid.read_text()}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_it_can_end_while_it_waits_for_orders():
    """As at SIGTERM: whoever gives them has not closed the pipe."""
    program = (
        "import time; from gift_jax.pipeline import worker; "
        "worker._read_in_background(worker._standard_input()); time.sleep(0.2)"
    )
    command = [sys.executable, "-c", program]
    reading, writing = os.pipe()
    ended = subprocess.run(command, cwd=launch.ROOT, stdin=reading, capture_output=True)
    os.close(writing)
    os.close(reading)
    assert (ended.returncode, ended.stderr) == (0, b"")
