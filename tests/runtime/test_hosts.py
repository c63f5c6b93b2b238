"""Several processes that run one job, with the real command and virtual devices."""

import itertools
import json
import pathlib
import random
import shutil
import signal
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gift_jax.runtime import hosts, preemption
from gift_jax.train import checkpoint
from tests import launch

EPOCHS = 30
JOB = (*launch.SMALL_JOB, f"--config.train.epochs={EPOCHS}")


@given(st.integers(0, 200), st.integers(1, 17))
def test_shares_are_contiguous_even_and_complete(n, count):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hosts, "count", lambda: count)
        shares = []
        for index in range(count):
            patch.setattr(hosts, "index", lambda index=index: index)
            shares.append(hosts.share(n))
    assert [i for share in shares for i in share] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_host_needs_nobody():
    assert (hosts.count(), hosts.index(), hosts.is_primary()) == (1, 0, True)
    assert hosts.broadcast({"a": [1]}) == {"a": [1]}
    hosts.barrier("alone")
    assert [hosts.on_any("alone", flag=flag) for flag in (True, False)] == [True, False]


class Service:
    """JAX's key-value store, in which what is awaited appears at the third look."""

    def __init__(self, **said):
        self.said, self.looks, self.waits = said, 0, 0

    def key_value_set(self, key, value):
        self.said[key] = value

    def key_value_delete(self, directory):
        for key in [key for key in self.said if key.startswith(f"{directory}/")]:
            del self.said[key]

    def blocking_key_value_get(self, key, milliseconds):
        self.waits += 1
        if key not in self.said:
            raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: timed out")
        return self.said[key]

    def key_value_try_get(self, key):
        self.looks += 1
        if self.looks < 3:
            raise jax.errors.JaxRuntimeError("NOT_FOUND: no such key")
        return self.said.setdefault(key, "said")


def test_a_wait_leaves_one_call_with_the_service(monkeypatch):
    service = Service()
    monkeypatch.setattr(hosts, "_client", lambda: service)
    assert hosts._wait_for("key") == "said"
    assert (service.waits, service.looks) == (1, 3)


def of_two_hosts(monkeypatch, service):
    """Makes this process the first of two that have said nothing yet."""
    monkeypatch.setattr(hosts, "_client", lambda: service)
    monkeypatch.setattr(hosts, "_sequence", itertools.count())
    monkeypatch.setattr(hosts, "_meetings", 0)
    monkeypatch.setattr(hosts, "count", lambda: 2)


def test_what_all_hosts_have_read_is_deleted(monkeypatch):
    service = Service()
    of_two_hosts(monkeypatch, service)
    hosts.broadcast("first")
    for meeting, number in ((1, 1), (2, 2), (3, 4)):
        service.said[f"gift_jax/{meeting}/{number}/any/1"] = '["here", true]'
        assert hosts.on_any("here", flag=False)
        # The other host may not have read the answer yet.
        assert f"gift_jax/{meeting}/{number}/any/go" in service.said
        left = {int(key.split("/")[1]) for key in service.said}
        assert left == {meeting}
        if meeting == 2:
            hosts.broadcast("second")
            assert "gift_jax/3/3/value" in service.said
            assert "gift_jax/2/2/any/go" in service.said


def test_hosts_that_wait_at_different_places_are_an_error(monkeypatch):
    service = Service(**{"gift_jax/1/0/any/1": '["there", false]'})
    of_two_hosts(monkeypatch, service)
    with pytest.raises(RuntimeError, match=r"different places: \['here', 'there'\]"):
        hosts.barrier("here")


def metrics(workdir: pathlib.Path) -> list[dict]:
    lines = [p.read_text().splitlines() for p in workdir.glob("runs/*/metrics.jsonl")]
    return [json.loads(line) for line in lines[0]] if lines else []


def params(workdir: pathlib.Path) -> dict:
    (run,) = workdir.glob("runs/*/checkpoints")
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(checkpoint.latest_weights(run.parent))["params"]


def assert_same_training(workdir: pathlib.Path, expected: pathlib.Path) -> None:
    # Sums over processes round in another way. Where that takes a value to the other
    # side of a ReLU's kink, one channel goes on a ten thousandth apart.
    ours, theirs = metrics(workdir), metrics(expected)
    assert [line["epoch"] for line in ours] == list(range(EPOCHS))
    for name in ("loss", "gradient_norm"):
        np.testing.assert_allclose(
            [line[name] for line in ours], [line[name] for line in theirs], atol=2e-3
        )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3),
        params(workdir),
        params(expected),
    )
    ours, theirs = (
        json.loads((directory / "results.jsonl").read_text())
        for directory in (workdir, expected)
    )
    for name in ("top1_last", "top1_best", "top5_last", "teacher_top1", "run_id"):
        assert ours[name] == theirs[name], name


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The work directory of one process with four devices."""
    directory = tmp_path_factory.mktemp("expected")
    launch.run((*JOB, f"--workdir={directory}"), directory / "logs", devices=4)
    return directory


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """The work directory of two processes with two devices each."""
    directory = tmp_path_factory.mktemp("of_two")
    arguments = (*JOB, f"--workdir={directory}")
    output = launch.run(arguments, directory / "logs", processes=2, devices=2)
    assert output.count("| top-1 last |") == 1  # one of them prints it
    return directory


@pytest.fixture
def prepared(of_two, tmp_path):
    """A work directory that lacks but the student."""
    workdir = tmp_path / "workdir"
    shutil.copytree(of_two, workdir, ignore=shutil.ignore_patterns("runs", "logs"))
    (workdir / "results.jsonl").unlink()
    return workdir


def test_two_processes_give_what_one_gives(of_two, expected):
    assert json.loads((of_two / "results.jsonl").read_text())["devices"] == "4 cpu"
    ours, theirs = (
        np.load(directory / "distilled" / "rded_ipc2_conv1-width=8" / "distilled.npz")
        for directory in (of_two, expected)
    )
    np.testing.assert_array_equal(ours["images"], theirs["images"])
    assert_same_training(of_two, expected)


@pytest.mark.slow
def test_any_number_of_processes_goes_on_with_a_run(prepared, expected, tmp_path):
    def start(processes):
        return launch.Processes(
            (*JOB, f"--workdir={prepared}"),
            tmp_path / f"logs{len(list(tmp_path.iterdir()))}",
            processes=processes,
            devices=4 // processes,
        )

    with start(1) as job:
        job.wait_until(lambda: len(metrics(prepared)) >= 2)
        launch.terminate(job.processes[0])
        assert job.wait() == [preemption.EXIT_CODE]
    saved = len(metrics(prepared))
    with start(2) as job:
        job.wait_until(lambda: len(metrics(prepared)) > saved)
        launch.terminate(job.processes[1])
        assert job.wait() == [preemption.EXIT_CODE] * 2
        assert f"resumed after epoch {saved}" in job.output(0)
        assert "asked to stop" in job.output(0)
    saved = len(metrics(prepared))
    with start(2) as job:
        # An evaluation is compiled, too: who waits for another to compile hears of its
        # end after JAX's 100 s only.
        job.wait_until(lambda: len(metrics(prepared)) > EPOCHS // 2)
        job.processes[1].kill()
        assert job.wait(60) == [1, -9]
        assert f"resumed after epoch {saved}" in job.output(0)
        assert "has ended, or did not answer in time" in job.output(0)
        assert "Traceback" not in job.output(0)
    assert len(metrics(prepared)) < EPOCHS
    with start(1) as job:
        assert job.wait() == [0], job.output()
    assert_same_training(prepared, expected)


def test_an_error_of_the_primary_host_reaches_the_other(prepared, tmp_path):
    arguments = (*JOB, f"--workdir={prepared}", "--config.teacher.epochs=7")
    with launch.Processes(arguments, tmp_path / "logs", processes=2) as job:
        assert job.wait(60) == [1, 1]
        for number in (0, 1):
            assert "training.epochs: made with 2, now 7" in job.output(number)
        assert "error: process 0 stopped: " in job.output(1)
        assert "Traceback" not in job.output()


def test_a_coordinator_that_is_not_there_is_one_error(tmp_path):
    arguments = (
        *JOB,
        f"--workdir={tmp_path}",
        f"--coordinator_address=localhost:{launch.free_port()}",
        "--num_processes=2",
        "--process_id=1",
        "--initialization_timeout=2",
    )
    with launch.Processes(arguments, tmp_path / "logs") as job:
        assert job.wait(60) == [1]
        assert "not all of 2 processes met at localhost:" in job.output()
        assert "within 2 s" in job.output()
        assert len(job.output().strip().splitlines()) == 1


def test_without_a_cluster_distributed_says_what_to_give(tmp_path):
    arguments = (*JOB, f"--workdir={tmp_path}", "--distributed")
    with launch.Processes(arguments, tmp_path / "logs") as job:
        assert job.wait(60) == [1]
        assert "no cluster was detected" in job.output()
        assert "--coordinator_address" in job.output()


def start_unlike(workdir, logs, first, second):
    """Two processes, each with arguments of its own as well."""
    together = [f"--coordinator_address=localhost:{launch.free_port()}"]
    return [
        launch.Processes(
            (*JOB, f"--workdir={workdir}", *together, f"--process_id={number}", *own),
            logs / str(number),
        )
        for number, own in enumerate((first, second))
    ]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            ["--num_processes=2", "--config.train.epochs=31", "--config.seed=1"],
            "  config.seed: 0 on process 0, 1 on 1\n"
            "  config.train.epochs: '30' on process 0, '31' on 1",
        ),
        pytest.param(
            ["--num_processes=3"],
            "  number of processes: 2 on process 0, 3 on 1",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_hosts_do_not_have_in_common_is_named(tmp_path, second, message):
    jobs = start_unlike(tmp_path / "w", tmp_path, ["--num_processes=2"], second)
    with jobs[0], jobs[1]:
        assert [job.wait() for job in jobs] == [[1], [1]]
        for job in jobs:
            assert message.replace("'", "") in job.output().replace("'", "")
            assert "Traceback" not in job.output()
    assert not (tmp_path / "w" / "teacher").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "code"),
    [
        pytest.param(signal.SIGTERM, preemption.EXIT_CODE, marks=pytest.mark.slow),
        (signal.SIGINT, 130),
    ],
)
def test_a_signal_to_all_of_a_group_ends_it_in_a_line(prepared, tmp_path, how, code):
    arguments = (*JOB, f"--workdir={prepared}")
    with launch.Processes(arguments, tmp_path / "logs", processes=2) as job:
        job.wait_until(lambda: len(metrics(prepared)) > 0)
        for process in job.processes:
            process.send_signal(how)
        assert job.wait() == [code] * 2, job.output()
        assert "run the same command again" in job.output()
        assert "Traceback" not in job.output()


@pytest.mark.slow
def test_twenty_kills_of_either_process_lose_nothing(prepared, expected, tmp_path):
    rng, kills = random.Random(0), 0
    while len(metrics(prepared)) < EPOCHS - 1 and kills < 20:
        before = len(metrics(prepared))
        arguments = (*JOB, f"--workdir={prepared}", "--config.train.checkpoint_every=1")
        logs = tmp_path / f"logs{kills}"
        with launch.Processes(arguments, logs, processes=2, devices=2) as job:
            job.wait_until(lambda before=before: len(metrics(prepared)) > before)
            time.sleep(rng.uniform(0, 0.2))
            rng.choice(job.processes).kill()
            codes = job.wait(120)
            assert -signal.SIGKILL in codes and 0 not in codes, job.output()
        kills += 1
    print("kills", kills)
    output = launch.run(arguments, tmp_path / "last", processes=2, devices=2)
    assert "resumed after epoch" in output
    assert_same_training(prepared, expected)
