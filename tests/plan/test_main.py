"""The report of `gift_jax.plan`, and its command."""

import functools
import pathlib
import re
import subprocess
import sys

import jax
import pytest

from gift_jax.configs import common
from gift_jax.plan import __main__ as plan
from tests.plan.planned import work

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_the_report_needs_no_data_and_leaves_no_array():
    config = common.get_config("tiny_imagenet")
    config.teacher.checkpoint = "weights.pth"
    config.student.name = "conv2"
    config.student.width = 8
    config.augment.diffaug = "flip"  # compiled much faster than the whole
    config.train.seeds = (0, 1)
    config.train.evaluators = "accuracy+builtins:print"
    before = jax.live_arrays()
    text = plan.report(work(config), utilization=0.3, least_step=1e-3)
    # Those of other tests may go meanwhile.
    assert {id(a) for a in jax.live_arrays()} <= {id(a) for a in before}
    assert "tiny_imagenet: 200 classes, 64x64x3, 10,000 test images" in text
    # Convolutions, their biases and batch norm, and the classifier.
    weights = 9 * (3 + 8) * 8 + 3 * 2 * 8 + (16 * 16 * 8 + 1) * 200
    assert f"student     conv2-width=8: {weights:,} parameters, float32" in text
    assert "soft labels 800 MB in float16" in text
    left_out = "not counted, as it is not known what it does: the evaluator builtins"
    assert text.count("not counted") == text.count(left_out) == 1
    assert "an estimate, assuming 30% of 275 TFLOP/s" in text
    assert "while conv2-width=8 trains, one of 2 at once\n" in text
    assert re.search(r"\d% of 32 GB$", text)


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
    assert found.stdout.count("choice of crops (rded)") == 1
    assert len(re.findall(r"the teacher .* 128 +360 ", found.stdout)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--device=abacus", "unknown device 'abacus'"),
        slow("--devices=2", "--devices needs --peak_tflops and --memory_gb"),
        slow("--config.teacher.name=conv33", "unknown teacher 'conv33'"),
        ("--config.dataset.name=folder:x", "unknown dataset of known size 'folder:x'"),
    ],
)
def test_the_command_names_mistakes(arguments, message):
    found = command(f"--config=configs/digits.py {arguments}")
    assert found.returncode == 1
    assert found.stderr.startswith(f"error: {message}")
