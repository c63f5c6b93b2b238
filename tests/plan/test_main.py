"""The command `gift_jax.plan`."""

import functools
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


# Each is a process that imports JAX.
slow = functools.partial(pytest.param, marks=pytest.mark.slow)


def command(arguments):
    return subprocess.run(
        [sys.executable, "-m", "gift_jax.plan", *arguments.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_the_command_plans_every_job_of_a_grid(tmp_path):
    found = command(
        "--config=configs/digits.py:student=conv1,loss=gift,ipc=1,epochs=4 --hosts=2 "
        "--devices=2 --peak_tflops=1 --memory_gb=1 "
        "--config.augment.diffaug=flip --config.distilled.name=random+rded "
        f"--config.dataset.data_dir={tmp_path}/none"
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("machine     1 TFLOP/s each: 2 devices") == 2
    assert "random, IPC 1: 10 images, 4 views" in found.stdout
    lines = found.stdout.splitlines()
    assert sum(line.startswith("choice of crops (rded) ") for line in lines) == 1
    assert len(re.findall(r"the teacher .* 128 +360 ", found.stdout)) == 1
    assert lines.count("made by a plan above: the teacher") == 1
    assert lines[-1].startswith("2 plans: ")


@pytest.mark.slow
def test_a_protocol_that_a_flag_chooses_is_planned():
    options = "student=conv1,teacher=conv1,ipc=1,distill=random"
    found = command(f"--config=configs/digits.py:{options} --config.protocol=rded")
    assert "random, IPC 1: 10 images, 300 views" in found.stdout, found.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--device=abacus", "unknown device 'abacus'"),
        slow("--devices=2", "--devices needs --peak_tflops and --memory_gb"),
        slow("--config.teacher.name=conv33", "unknown teacher 'conv33'"),
        slow("--config.studnt.width=8", "unknown field 'studnt' of the config in"),
        ("--config.dataset.name=folder:x", "no class folders in x/train"),
    ],
)
def test_the_command_names_mistakes(arguments, message):
    found = command(f"--config=configs/digits.py {arguments}")
    assert found.returncode == 1
    assert found.stderr.startswith(f"error: {message}")
