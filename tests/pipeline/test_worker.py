"""What a worker answers to whoever tells it what to do."""

import os
import pickle
import subprocess
import sys

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
