"""Grids that are trained by several processes of one command."""

import os
import pathlib
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from gift_jax.configs import common
from gift_jax.pipeline import job, processes, results
from gift_jax.pipeline.grid import Shard
from gift_jax.runtime import errors, preemption
from tests import launch

COMMAND = """
import pathlib, sys
from gift_jax.pipeline import job
from gift_jax.runtime import errors, preemption
from tests.pipeline.test_grid import GRID
from tests.pipeline.test_job import small_config

preemption.listen()
config = small_config(**GRID)
config.train.processes = int(sys.argv[2])
config.update_from_flattened_dict(dict(f.split("=") for f in sys.argv[3:]))
try:
    job.run_job(config, pathlib.Path(sys.argv[1]))
except preemption.PreemptedError:
    sys.exit(preemption.EXIT_CODE)
except errors.EXPECTED as error:
    sys.exit(f"error: {error}")
"""


def start(directory, number, *fields):
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(directory), str(number), *fields],
        cwd=launch.ROOT,
        env={**os.environ, "XLA_FLAGS": launch.QUICKLY},
        stderr=subprocess.PIPE,
        text=True,
    )


def trained(directory, number, *fields):
    process = start(directory, number, *fields)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said[-3000:]
    # By itself a row also says how long it took.
    rows = results.read_results(directory)
    return {r["run_id"]: {**r, "train_seconds": None} for r in rows}, said


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("one"), 1)[0]


def test_rows_are_those_of_one_process(one_by_one, tmp_path):
    rows, said = trained(tmp_path, 2)
    assert "students, 2 at once: 100%" in said
    assert len(rows) == 8 and rows == one_by_one
    lines = (tmp_path / results.RESULTS_FILE).read_text().splitlines()
    assert len(lines) == len(rows)


@pytest.mark.slow
def test_a_second_start_finds_all_and_starts_no_process(one_by_one, tmp_path):
    trained(tmp_path, 1)
    rows, said = trained(tmp_path, 2)
    assert rows == one_by_one and "at once" not in said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_what_is_stopped_goes_on(one_by_one, tmp_path, number):
    process = start(tmp_path, 2)
    while not results.read_results(tmp_path):
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(number)
    process.communicate(timeout=120)
    if number == signal.SIGTERM:
        assert process.returncode == preemption.EXIT_CODE
    deadline = time.monotonic() + 60
    while workers_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not workers_of(tmp_path)
    assert trained(tmp_path, 2)[0] == one_by_one


def workers_of(directory):
    """Ids of processes that have a file of the directory open."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            files = [str(file.readlink()) for file in process.glob("fd/*")]
        except OSError:
            continue
        if any(file.startswith(str(directory)) for file in files):
            found.append(process.name)
    return found


@pytest.mark.slow
def test_what_a_process_meets_is_one_message(one_by_one, tmp_path):
    del one_by_one  # what it has compiled serves here, too
    # The students' evaluator fails in whoever trains.
    fields = ["train.evaluators=accuracy+tests.pipeline.failing_evaluator:make"]
    process = start(tmp_path, 2, *fields)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 1
    assert said.splitlines()[-1] == "error: the disk of this evaluator is full"


def test_workers_that_were_asked_to_stop_as_well_are_no_error(monkeypatch):
    ended = {"error": "a process that trained students was ended (exit code -15)"}
    worker = SimpleNamespace(is_alive=lambda: False, messages=lambda: [ended])
    with pytest.raises(errors.UserError, match="exit code -15"):
        processes._wait_for([worker], lambda: None)
    monkeypatch.setattr(preemption, "requested", lambda: True)
    with pytest.raises(preemption.PreemptedError):
        processes._wait_for([worker], lambda: None)


def test_a_grid_is_split_by_itself_where_a_student_takes_long(tmp_path, monkeypatch):
    told = []
    student = SimpleNamespace(network="conv", loss="gift")
    unit = SimpleNamespace(trainings=1, upstream=("rded",), students=[student])
    grid = SimpleNamespace(processes=0, units=[unit] * 9)

    def train(of, units, *, number, on_trained):
        told.append(([unit.number for unit in units], number))

    monkeypatch.setattr(job, "usable_cores", lambda: 2)
    monkeypatch.setattr(job.devices, "local", lambda: cpus(1))
    monkeypatch.setattr(job.processes, "train", train)
    for unfinished, seconds, expected in (
        ([2, 3, 4, 5, 6], 59, []),
        ([2, 3, 4, 5, 6], 61, [([3, 4, 5, 6], 2)]),
        # The last one is left to this process, which has all cores.
        ([2, 3, 4, 5, 6, 7], 61, [([3, 4, 5, 6], 2)]),
        ([2, 3, 4], 61, []),
    ):
        grid.unfinished = lambda u=unfinished: u
        monkeypatch.setattr(job, "_seconds_left", lambda *_, s=seconds: s)
        told.clear()
        job._train_in_processes(grid, common.get_config(), tmp_path, Shard())
        assert told == expected
    # What is asked for is done, for as few units.
    grid.processes, grid.unfinished = 2, lambda: [0, 1, 2]
    told.clear()
    job._train_in_processes(grid, common.get_config(), tmp_path, Shard())
    assert told == [([0, 1], 2)]


def cpus(number):
    return [SimpleNamespace(platform="cpu")] * number


@pytest.mark.parametrize(
    ("wanted", "units", "devices", "least_units", "expected"),
    [
        (4, 100, cpus(1), 2, 4),
        (4, 7, cpus(1), 2, 3),  # two units or more for each
        (4, 7, cpus(1), 1, 4),
        (4, 3, cpus(1), 1, 3),
        (4, 1, cpus(1), 2, 1),
        (1, 100, cpus(1), 2, 1),
        (4, 100, cpus(2), 2, 1),
        (4, 100, [SimpleNamespace(platform="gpu")], 2, 1),
    ],
)
def test_how_many(wanted, units, devices, least_units, expected):
    found = processes.count(wanted, range(units), devices, least_units=least_units)
    assert found == expected


@pytest.mark.parametrize(
    ("units", "number", "expected"), [(11, 2, 10), (12, 2, 12), (9, 4, 8), (11, 4, 11)]
)
def test_no_unit_is_the_only_one_of_the_last_round(units, number, expected):
    units = [processes.Unit(number, "gift") for number in range(units)]
    assert processes.with_company(units, number) == units[:expected]


@pytest.mark.parametrize(
    ("own", "of_others", "expected"),
    [
        (None, [], 3),  # the first
        ("kl", ["gift"], 5),  # its own
        ("kl", ["kl", "gift"], 5),  # its own, whoever else has it
        (None, ["gift"], 5),  # nobody's
        ("ce", ["gift"], 5),
        (None, ["gift", "kl"], 7),
        (None, ["gift", "kl", "mse"], 3),  # the first, as others have all
    ],
)
def test_which_unit_is_next(own, of_others, expected):
    named = {3: "gift", 4: "gift", 5: "kl", 6: "kl", 7: "mse"}
    waiting = [processes.Unit(*item) for item in named.items()]
    assert processes.next_unit(waiting, own, of_others).number == expected


def test_processes_take_all_units_once_and_compile_few_programs_twice():
    units = [processes.Unit(n, n // 3) for n in range(9)]  # of three seeds each
    waiting, taken = processes._Waiting(units), {"a": [], "b": []}
    for _ in range(5):
        for worker, numbers in taken.items():
            numbers.append(waiting.take(worker))
    assert taken == {"a": [0, 1, 2, 6, 8], "b": [3, 4, 5, 7, None]}
    assert waiting.take("a") is None


def test_what_a_notebook_defines_is_trained_in_it(tmp_path, one_device):
    def unfinished():
        raise AssertionError("looked for what other processes could train")

    grid = SimpleNamespace(processes=2, units=range(8), unfinished=unfinished)
    config = common.get_config()
    with pytest.raises(AssertionError, match="other processes"):
        job._train_in_processes(grid, config, tmp_path, Shard())
    config.loss.name = "gift+__main__:margin"
    job._train_in_processes(grid, config, tmp_path, Shard())
