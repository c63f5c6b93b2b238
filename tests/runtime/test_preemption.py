"""Kills at random moments, after which the same command ends as if nothing happened."""

import json
import os
import pathlib
import random
import signal
import subprocess
import threading
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from gift_jax.runtime import preemption
from gift_jax.train import checkpoint
from tests import launch


@pytest.fixture
def listening(monkeypatch):
    """SIGTERM is noted here, and forgotten afterwards."""
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(preemption, "_requested", threading.Event())
    preemption.listen()
    yield
    signal.signal(signal.SIGTERM, handler)


def test_sigterm_is_noted_and_stops_where_it_is_asked_for(listening, caplog):
    assert not preemption.requested() and not preemption.agreed()
    preemption.check()
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption._requested.wait(10)
    with pytest.raises(preemption.PreemptedError):
        preemption.check()
    deadline = time.monotonic() + 10
    while not caplog.records and time.monotonic() < deadline:  # logged by a thread
        time.sleep(0.01)
    assert caplog.text.count("asked to stop (SIGTERM)") == 1


def test_hosts_stop_together(monkeypatch):
    with preemption.together("alone"):
        pass
    with pytest.raises(preemption.PreemptedError), preemption.together("alone"):
        raise preemption.PreemptedError
    with pytest.raises(KeyError), preemption.together("alone"):
        raise KeyError
    # Another one is stopped.
    monkeypatch.setattr(preemption.hosts, "on_any", lambda name, *, flag: True)
    with pytest.raises(preemption.PreemptedError), preemption.together("two"):
        pass


JOB = (
    *launch.SMALL_JOB,
    "--config.optimizer.name=adamw",
    "--config.teacher.epochs=10",
    "--config.relabel.views=60",
    "--config.train.epochs=240",
    "--config.train.eval_every=60",
    "--config.train.checkpoint_every=2",
)
# What grows while a stage goes on, latest stage first.
STAGES = {
    "student": "runs/*/metrics.jsonl",
    "relabelling": "soft_labels/*/logits/**/*",
    "teacher": "teacher/*/checkpoints/*",
}


def extent(workdir: pathlib.Path, pattern: str) -> int:
    """How much of a stage is there."""
    try:
        found = [p for p in workdir.glob(pattern) if p.name[0] != "."]
        return sum(
            p.read_text().count("\n") if p.is_file() and p.suffix == ".jsonl" else 1
            for p in found
        )
    except FileNotFoundError:  # renamed meanwhile
        return 0


def extents(workdir: pathlib.Path) -> dict[str, int]:
    return {stage: extent(workdir, pattern) for stage, pattern in STAGES.items()}


def kill_once(
    workdir: pathlib.Path, logs: pathlib.Path, how: signal.Signals, delay: float
) -> str:
    """Starts the job and ends it a moment after it has gone on; the stage it was in."""
    before = extents(workdir)
    with launch.Processes((*JOB, f"--workdir={workdir}"), logs) as job:
        (process,) = job.processes
        job.wait_until(lambda: extents(workdir) != before)
        time.sleep(delay)
        now = extents(workdir)
        process.send_signal(how)
        code = -signal.SIGKILL if how == signal.SIGKILL else preemption.EXIT_CODE
        assert job.wait(60) == [code], job.output()
    return next((stage for stage in STAGES if now[stage] > 0), "between")


def arrays(workdir: pathlib.Path) -> dict:
    """All that is trained or made, bit for bit."""
    (run,) = workdir.glob("runs/*/checkpoints")
    (teacher,) = workdir.glob("teacher/*/variables")
    (distilled,) = workdir.glob("distilled/*/distilled.npz")
    latest = checkpoint.latest_weights(run.parent).parent
    with ocp.StandardCheckpointer() as checkpointer:
        trained = {
            str(part.relative_to(workdir)): checkpointer.restore(part)
            for part in (latest / "variables", latest / "optimizer", teacher)
        }
    return {
        **trained,
        "distilled": dict(np.load(distilled)),
        "soft labels": {
            str(chunk.relative_to(workdir)): np.fromfile(chunk, np.uint8)
            for chunk in sorted(workdir.glob("soft_labels/*/logits/**/*"))
            if chunk.is_file()
        },
    }


def assert_same_end(workdir: pathlib.Path, expected: pathlib.Path) -> None:
    jax.tree.map(np.testing.assert_array_equal, arrays(workdir), arrays(expected))
    ours, theirs = (
        next(directory.glob("runs/*/metrics.jsonl")).read_text()
        for directory in (workdir, expected)
    )
    assert ours == theirs
    ours, theirs = (
        json.loads((directory / "results.jsonl").read_text())
        for directory in (workdir, expected)
    )
    others = {"train_seconds": 0, "checksum": ""}
    assert ours | others == theirs | others


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The work directory of a job that nothing interrupted."""
    directory = tmp_path_factory.mktemp("expected")
    launch.run((*JOB, f"--workdir={directory}"), directory / "logs")
    return directory


def flip_a_bit(workdir: pathlib.Path, rng: random.Random) -> bool:
    """Damages the latest of several checkpoints, of a run or a teacher."""
    for checkpoints in (*workdir.glob("*/*/checkpoints"),):
        steps = sorted(int(p.name) for p in checkpoints.iterdir() if p.name.isdigit())
        if len(steps) > 1:
            latest = checkpoints / str(steps[-1])
            file = rng.choice(sorted(p for p in latest.glob("*/**/*") if p.is_file()))
            content = bytearray(file.read_bytes())
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            file.write_bytes(content)
            return True
    return False


def killed_and_ended(workdir, logs, expected, *, kills, seed):
    rng = random.Random(seed)
    stages = []
    flips = 0
    for number in range(kills):
        flips += flip_a_bit(workdir, rng)
        how = (signal.SIGTERM, signal.SIGKILL)[number % 2]
        delay = rng.uniform(0, 0.3)
        stages.append(kill_once(workdir, logs / str(number), how, delay))
    with launch.Processes((*JOB, f"--workdir={workdir}"), logs / "last") as job:
        assert job.wait() == [0], job.output()
    assert_same_end(workdir, expected)
    logged = "".join(path.read_text() for path in logs.glob("*/*.log"))
    aside = [line for line in logged.splitlines() if "moved to unreadable-" in line]
    # A kill may interrupt the deletion of an old checkpoint, which is set aside, too.
    assert sum("is missing)" not in line for line in aside) == flips > 0
    return stages


@pytest.mark.slow
def test_a_killed_job_ends_as_one_that_was_not(expected, tmp_path):
    killed_and_ended(tmp_path / "w", tmp_path / "logs", expected, kills=4, seed=0)


@pytest.mark.slow
def test_twenty_kills_lose_nothing(expected, tmp_path):
    stages = killed_and_ended(
        tmp_path / "w", tmp_path / "logs", expected, kills=20, seed=1
    )
    print(stages)
    assert set(stages) >= set(STAGES)


@pytest.mark.slow
def test_sigterm_before_anything_can_be_saved(tmp_path):
    with launch.Processes(
        (*JOB, f"--workdir={tmp_path / 'w'}"), tmp_path / "logs"
    ) as job:
        job.wait_until(lambda: (tmp_path / "w" / "teacher").is_dir())
        launch.terminate(job.processes[0])
        assert job.wait(60) == [preemption.EXIT_CODE]
        assert "run the same command again" in job.output()
        assert "Traceback" not in job.output()


@pytest.mark.slow
@pytest.mark.skipif("os.getuid() != 0", reason="mounts a small disk")
def test_a_full_disk_is_one_error_and_nothing_is_lost(expected, tmp_path, monkeypatch):
    # Compiled functions fill the disk, too, as they do for a user.
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(options):
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True
        )

    mount("size=600k")
    try:
        with launch.Processes((*JOB, f"--workdir={disk / 'w'}"), tmp_path / "0") as job:
            assert job.wait() == [1], job.output()
            error = job.output().split("error: ")[1]
            assert "No space left on device" in error and str(disk) in error
            assert "Traceback" not in error
        mount("remount,size=200m")
        with launch.Processes((*JOB, f"--workdir={disk / 'w'}"), tmp_path / "1") as job:
            assert job.wait() == [0], job.output()
        assert_same_end(disk / "w", expected)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
