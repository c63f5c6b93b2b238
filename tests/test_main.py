"""The command as users type it."""

import functools
import json
import os
import subprocess
import sys

import jax
import orbax.checkpoint as ocp
import pytest

from tests import launch

# Each is a process that imports JAX.
slow = functools.partial(pytest.param, marks=pytest.mark.slow)


def run_main(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "gift_jax.main", *arguments],
        cwd=launch.ROOT,
        env={**os.environ, "XLA_FLAGS": launch.QUICKLY, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


SMALL = (
    "--config=configs/digits.py:teacher=conv1,student=conv1,distill=rded,ipc=2,epochs=2",
    "--config.teacher.width=8",
    "--config.teacher.epochs=1",
    "--config.teacher.min_accuracy=0",
    "--config.student.width=8",
    "--config.distilled.rded.images_per_class=4",
    "--config.augment.diffaug=flip",
)


def test_a_job_and_another_config(tmp_path):
    workdir = f"--workdir={tmp_path}/workdir"
    first = run_main(*SMALL, workdir, "--config.loss.name=kl")
    assert first.returncode == 0, first.stderr
    assert "| top-1 last |" in first.stdout
    assert "relabel: 100%" in first.stderr
    rows = (tmp_path / "workdir" / "results.jsonl").read_text().splitlines()
    assert [json.loads(row)["loss"] for row in rows] == ["kl"]

    other = run_main(*SMALL, workdir, "--config.teacher.epochs=2")
    assert other.returncode == 1
    assert "training.epochs: made with 1, now 2" in other.stderr
    assert "Traceback" not in other.stderr


def test_a_platform_without_a_device_is_one_line_and_no_directory(tmp_path):
    workdir = tmp_path / "workdir"
    done = run_main(*SMALL, f"--workdir={workdir}", JAX_PLATFORMS="cuda")
    assert done.returncode == 1
    assert done.stderr.startswith("error: JAX_PLATFORMS is 'cuda', but JAX cannot use")
    assert "Traceback" not in done.stderr
    assert not workdir.exists()


@pytest.mark.slow
def test_three_devices_and_64_bits_train_in_float32(tmp_path):
    done = run_main(
        *SMALL,
        f"--workdir={tmp_path}",
        JAX_ENABLE_X64="1",
        XLA_FLAGS="--xla_force_host_platform_device_count=3",
    )
    assert done.returncode == 0, done.stderr
    assert "finished" in done.stdout
    (stored,) = tmp_path.glob("teacher/*/variables")
    with ocp.StandardCheckpointer() as checkpointer:
        weights = checkpointer.restore(stored.resolve())
    assert {leaf.dtype.name for leaf in jax.tree.leaves(weights)} == {"float32"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--workdir"),
        (
            ("--config.loss.nam=kl",),
            "'nam' of the config in --config.loss.nam=kl (did you mean 'name'?)",
        ),
        slow(("--config.los.name=kl",), "'los' of the config in --config.los.name=kl"),
        (("--config.train.epochs=many",), "config.train.epochs=many"),
        slow(("--wrkdir=x",), "workdir"),
        slow(("--config.loss=gift",), "did you mean --config.loss.name=gift?"),
        slow(("stray",), "unexpected arguments: stray"),
    ],
)
def test_wrong_arguments_are_one_message(tmp_path, arguments, message):
    workdir = (f"--workdir={tmp_path}",) if arguments else ()
    done = run_main("--config=configs/digits.py", *workdir, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("config", "message"),
    [
        slow("configs/digit.py", "configs/digit.py"),
        slow("configs/digits.py:distil=rded", "did you mean 'distill'"),
        ("configs/digits.py:ipc=ten", "ipc=ten must be of type int"),
    ],
)
def test_wrong_configs_are_one_message(tmp_path, config, message):
    done = run_main(f"--config={config}", f"--workdir={tmp_path}")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bucket_is_no_work_directory():
    done = run_main("--config=configs/digits.py", "--workdir=gs://bucket/run")
    assert done.returncode == 1
    assert "--workdir is gs://bucket/run, a URL" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_flagfile_is_one_message(tmp_path):
    done = run_main("--flagfile=absent.flags", f"--workdir={tmp_path}")
    assert done.returncode == 2
    assert "absent.flags" in done.stderr
    assert "Traceback" not in done.stderr


def test_dataset_that_is_not_prepared_is_one_message(tmp_path):
    done = run_main(
        "--config=configs/cifar10.py",
        f"--workdir={tmp_path / 'workdir'}",
        f"--config.dataset.data_dir={tmp_path}",
    )
    assert done.returncode == 1
    assert "cifar10" in done.stderr and "gift_jax.data.prepare" in done.stderr
    assert "Traceback" not in done.stderr


def test_main_job_imports_neither_tensorflow_nor_pytorch_nor_clu():
    code = (
        "import sys\n"
        "import gift_jax.main, gift_jax.pipeline.job\n"
        "found = {'tensorflow', 'torch', 'clu', 'torchvision'} & set(sys.modules)\n"
        "sys.exit(', '.join(found) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=launch.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
