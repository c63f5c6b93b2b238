"""Grids of students: what they share, their shards, and processes that are killed."""

import itertools
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from gift_jax import distilled as distilled_lib
from gift_jax.configs import digits
from gift_jax.data import Normalization
from gift_jax.pipeline import (
    distilled,
    grid,
    job,
    results,
    statistics,
    students,
    teacher,
)
from gift_jax.report import groups, reading, tables
from gift_jax.runtime.errors import InputError
from gift_jax.soft_labels import relabel
from gift_jax.train import batches, epochs, step
from tests.pipeline.test_identity import leave_untrained
from tests.pipeline.test_job import small_config

pytestmark = pytest.mark.usefixtures("one_device")

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Two losses, two seeds and two sizes of distilled data.
GRID = {
    "loss__name": "gift+kl",
    "train__seeds": (0, 1),
    "config__variants": ("ipc=1", "ipc=2"),
}
MEASURED = ("run_id", "top1_last", "top1_best", "top5_last", "status", "config_hash")


def measured(rows):
    return sorted(tuple(row[name] for name in MEASURED) for row in rows)


def counted(function, made):
    """The function, which notes its name in `made` when it is called."""

    def call(*args, **kwargs):
        made.append(function.__name__)
        return function(*args, **kwargs)

    return call


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The grid in one go, and what was made for it."""
    made = []
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (teacher, "train_teacher"),
            (relabel, "relabel"),
            (step, "new_student"),
        ):
            patch.setattr(module, name, counted(getattr(module, name), made))
        directory = tmp_path_factory.mktemp("whole")
        rows = job.run_job(small_config(**GRID), directory)
    return directory, rows, made


def test_what_comes_before_training_is_made_once_for_all_students(whole):
    _, rows, made = whole
    assert len(rows) == len({row["run_id"] for row in rows}) == 8
    assert {row["ipc"] for row in rows} == {1, 2}
    assert made.count("train_teacher") == 1
    assert made.count("relabel") == 2  # one a distilled dataset
    assert made.count("new_student") == 8


@pytest.mark.parametrize(
    "names",
    [
        "rded+random",
        pytest.param("sre2l+cda+gvbsm+edc+rded+random+dm", marks=pytest.mark.slow),
    ],
)
def test_every_distiller_makes_images_once_and_has_a_row(names, tmp_path, monkeypatch):
    # Networks as of `whole`, for which they are compiled.
    config = small_config(distilled__name=names, config__variants=("ipc=1", "ipc=2"))
    for name in ("sre2l", "cda", "gvbsm", "edc", "dm"):
        config.distilled[name].iterations = 2
    config.distilled.dm.width = 4
    config.teacher.min_accuracy = 0.0  # of images of two iterations
    images, made = [], []
    make = distilled._new_distilled

    def new_distilled(job, *args):
        images.append((job.spec.distilled.name, str(job.spec.distilled.ipc)))
        return make(job, *args)

    monkeypatch.setattr(distilled, "_new_distilled", new_distilled)
    for module, name in (
        (teacher, "train_teacher"),
        (statistics.real_statistics, "measure"),
        (relabel, "relabel"),
    ):
        monkeypatch.setattr(module, name, counted(getattr(module, name), made))
    for _ in range(2):  # the second time all of it is found
        job.run_job(config, tmp_path)
    wanted = [(name, ipc) for ipc in "12" for name in names.split("+")]
    assert sorted(images) == sorted(wanted)
    assert made.count("relabel") == len(wanted)
    assert made.count("train_teacher") == 1
    assert made.count("measure") == ("gvbsm" in names)
    rows, choices, _ = reading.read_results([tmp_path])
    compared = groups.compare(groups.group_rows(rows), None, choices)
    table = tables.accuracy_table(compared, ["gift"])
    places = [table.header.index(name) for name in ("distilled", "IPC")]
    cells = [tuple(row[place].text for place in places) for row in table.cells]
    assert sorted(cells) == sorted(wanted)


def test_gradients_are_traced_once_for_all_seeds_rates_and_optimizers(
    whole, monkeypatch
):
    directory, _, _ = whole
    traced = []
    gradients = counted(epochs.batch_gradients, traced)
    monkeypatch.setattr(epochs, "batch_gradients", gradients)
    # A loss that nothing was compiled for before.
    config = small_config(loss__name="gift-gamma=0.123", train__seeds=(0, 1))
    config.optimizer.name = "adamw+sgd"
    for rate in (1e-3, 2e-3):
        config.optimizer.learning_rate = rate
        assert len(job.run_job(config, directory)) == 4
    assert traced == ["batch_gradients"]


def test_variants_that_repeat_are_run_once(whole):
    directory, rows, _ = whole
    config = small_config(**GRID)
    config.variants = ("ipc=1", "ipc=2", "ipc=1", "distilled.ipc=2")
    assert job.run_job(config, directory) == rows


def test_runs_that_several_variants_have_are_for_one_process(tmp_path):
    config = small_config(distilled__ipc=1)
    # The official batch size of ten images is ten; losses of hard labels have no
    # teacher, whose names differ.
    config.variants = ("", "train.batch_size=10", "train.eval_batch_size=50")
    made = grid.Grid(config, tmp_path, grid.Shard())
    assert len(made.units) == 3
    assert made.unfinished() == [0]
    config.variants = ("relabel.source=hard,loss=ce",)
    config.distilled.name = "random"
    config.teacher.name = "conv1+conv2"
    made = grid.Grid(config, tmp_path, grid.Shard())
    assert len(made.units) == 1


def test_names_do_not_depend_on_what_was_trained_before(tmp_path, monkeypatch):
    leave_untrained(monkeypatch)
    # Both protocols have the same views, each under its own name.
    config = small_config()
    epochs = "train.epochs=2,relabel.views=2"
    config.variants = (f"protocol=gift,{epochs}", f"protocol=best,{epochs}")
    found = []
    for number, order in enumerate((1, -1)):
        made = grid.Grid(config, tmp_path / str(number), grid.Shard())
        assert len({setup.upstream for setup in made.setups}) == 1
        rows = [
            row
            for setup in made.setups[::order]
            for row in made.train(setup, on_trained=lambda: None)
        ]
        found.append(sorted(row["run_id"] for row in rows))
    assert found[0] == found[1]
    assert all("protocol=gift" not in name for name in found[0] if "muon" in name)


def test_hard_epochs_are_in_the_middle_of_every_training(tmp_path, monkeypatch):
    leave_untrained(monkeypatch)
    schedules, fit_together = [], students.fit_together

    def noted(states, data, soft_labels, *, epochs, **how):
        views = [soft_labels.start_reading(epoch)() for epoch in range(epochs)]
        schedules.append(
            "".join("S" if view.logits is not None else "H" for view in views)
        )
        return fit_together(states, data, soft_labels, epochs=epochs, **how)

    monkeypatch.setattr(students, "fit_together", noted)
    config = small_config(relabel__views=2, relabel__hard_epochs=2)
    config.variants = ("train.epochs=4", "train.epochs=10")
    job.run_job(config, tmp_path)
    assert schedules == ["SHHS", "SSSSHHSSSS"]


def test_shards_are_the_grid_in_parts(whole, tmp_path):
    _, rows, _ = whole
    config = small_config(**GRID)
    parts = [job.run_job(config, tmp_path, shard=grid.Shard(i, 3)) for i in range(3)]
    # Two setups of two seeds for each size.
    assert sorted(len(part) for part in parts) == [2, 2, 4]
    assert measured(itertools.chain(*parts)) == measured(rows)
    assert measured(results.read_results(tmp_path)) == measured(rows)
    # Seeds stay together, as they are compared with one another.
    for part in parts:
        assert {row["seed"] for row in part} == {0, 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("datm,distilled.datm.epochs=20", "begin up to epoch 19 and are of 2 epochs"),
        ("datm,ipc=200", "ipc is 200, but class 0 of digits has 1"),
        ("dm,ipc=200", "ipc is 200, but class 0 of digits has 1"),
        ("random,ipc=200", "ipc is 200, but class 0 of digits has 1"),
        ("rded,distilled.rded.factor=3", "3 does not divide the image size 8"),
        ("rded,distilled.rded.factor=8", "needs 640 images .* is 100: set it"),
        ("edc,ipc=101", "batch_size to at least 101"),
        ("edc,ipc=200,distilled.edc.batch_size=200", "200 images .* class 0 of digits"),
        ("random+gvbsm,ipc=101", "batch_size to at least 101"),
    ],
)
def test_what_cannot_be_made_is_said_before_any_work(options, message, tmp_path):
    config = digits.get_config(f"distill={options}")
    with pytest.raises(InputError, match=message):
        grid.Grid(config, tmp_path, grid.Shard())
    assert not any(p.is_dir() for p in tmp_path.glob("[!c]*"))


def test_a_batch_that_hosts_cannot_share_is_refused_before_any_work(
    tmp_path, monkeypatch
):
    used = batches.devices_used

    def over_four_hosts(batch_size, *, local_devices, num_hosts):
        return used(batch_size, local_devices=local_devices, num_hosts=4)

    monkeypatch.setattr(batches, "devices_used", over_four_hosts)
    with pytest.raises(InputError, match="batch of 50 does not divide over 4 hosts"):
        grid.Grid(digits.get_config(), tmp_path, grid.Shard())
    assert not any(p.is_dir() for p in tmp_path.glob("[!c]*"))


def test_published_images_of_all_variants_are_read_before_any_work(tmp_path):
    arrays = {"images": np.zeros((10, 8, 8, 1), np.uint8), "labels": np.arange(10)}
    np.savez(tmp_path / "whole.npz", **arrays)
    np.savez(tmp_path / "of_9.npz", **{n: a[:9] for n, a in arrays.items()})
    config = small_config()
    config.distilled.name, config.distilled.ipc = "mine", 1
    config.variants = tuple(
        f"distilled.path={tmp_path}/{n}.npz" for n in ("whole", "of_9")
    )
    with pytest.raises(InputError, match=r"of_9\.npz.*no image of class 9"):
        job.run_job(config, tmp_path / "workdir")
    assert not (tmp_path / "workdir" / "teacher").exists()


def test_a_learnt_rate_is_asked_for_by_every_job_of_the_images(tmp_path):
    rng = np.random.default_rng(0)
    images = distilled_lib.DistilledDataset(
        images=rng.uniform(size=(10, 8, 8, 1)).astype(np.float32),
        labels=np.arange(10),
        metadata=distilled_lib.Metadata("digits", 10, "datm", "", learning_rate=0.025),
        preprocess=Normalization((0.3,), (0.4,)),
        soft_labels=np.eye(10, dtype=np.float32),
    )
    distilled_lib.write_distilled(images, tmp_path / "datm", "datm")
    config = small_config(distilled__path=f"{tmp_path}/datm/images_best.pt")
    config.distilled.name, config.distilled.ipc = "mine", 1
    config.variants = ("", "protocol=datm")
    refused = r"protocol is 'datm'.*set optimizer\.learning_rate=0\.025"
    with pytest.raises(InputError, match=refused):
        job.run_job(config, tmp_path / "workdir")
    assert not (tmp_path / "workdir" / "teacher").exists()


@pytest.mark.parametrize("text", ["", "1", "2/2", "-1/2", "0/0", "a/b", "1/2/3"])
def test_wrong_shards(text):
    with pytest.raises(ValueError, match="expected i/n"):
        grid.Shard.parse(text)
    assert grid.Shard.parse("1/2") == grid.Shard(1, 2)


@pytest.mark.slow
def test_students_at_once_are_those_one_by_one(whole, tmp_path):
    _, rows, _ = whole
    rows = [row for row in rows if (row["ipc"], row["loss"]) == (1, "gift")]
    config = small_config(train__seeds=(0, 1), distilled__ipc=1)
    config.train.students_at_once = 2
    together = job.run_job(config, tmp_path)
    assert [row["run_id"] for row in together] == [row["run_id"] for row in rows]
    for joint, alone in zip(together, rows, strict=True):
        # A test image that lies between two classes may go either way.
        assert joint["top1_last"] == pytest.approx(alone["top1_last"], abs=2.0)
        assert joint["gradient_norm_first"] == pytest.approx(
            alone["gradient_norm_first"], rel=1e-3
        )


@pytest.mark.slow
def test_of_students_at_once_one_may_be_ahead(tmp_path):
    config = small_config(train__seeds=(0, 1), train__checkpoint_every=1)
    alone = job.run_job(small_config(train__checkpoint_every=1), tmp_path)[0]
    # Seed 0 is finished, seed 1 is not begun: it trains by itself.
    config.train.students_at_once = 2
    rows = job.run_job(config, tmp_path)
    assert rows[0] == alone and rows[1]["status"] == "finished"


COMMAND = """
import pathlib, sys
import tests.conftest  # as many virtual devices, for the very same rounding
import jax
from tests.pipeline.test_grid import GRID, grid, job, small_config

jax.local_devices = lambda **_: jax.devices()[:1]
index, count = map(int, sys.argv[2:])
job.run_job(
    small_config(**GRID), pathlib.Path(sys.argv[1]), shard=grid.Shard(index, count)
)
"""


def start(directory, index=0, count=1):
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(directory), str(index), str(count)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-3000:]


@pytest.mark.slow
def test_two_processes_share_a_work_directory(whole, tmp_path):
    _, rows, _ = whole
    shards = [start(tmp_path, i, 2) for i in range(2)]
    for shard in shards:
        finish(shard)
    assert measured(results.read_results(tmp_path)) == measured(rows)
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == len(rows)


def killed_at_random_moments(directory, kills, seed):
    """Kills a grid so many times, then lets it end; how many runs were there each."""
    rng, finished = random.Random(seed), []
    while len(finished) < kills:
        process = start(directory)
        time.sleep(rng.uniform(3, 12))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        finished.append({r["run_id"]: r for r in results.read_results(directory)})
    finish(start(directory))
    finished.append({r["run_id"]: r for r in results.read_results(directory)})
    return finished


def check_nothing_is_lost_or_run_twice(directory, finished, rows):
    for before, after in itertools.pairwise(finished):
        for run_id, row in before.items():
            # Time and all: the very row, not one of a run that was made anew.
            assert after[run_id] == row
    lines = (directory / "results.jsonl").read_text().splitlines()
    whole_lines = [line for line in lines if line.endswith("}")]
    assert len(whole_lines) == len(rows)
    assert measured(finished[-1].values()) == measured(rows)


@pytest.mark.slow
def test_a_grid_that_is_killed_goes_on_where_it_was(whole, tmp_path):
    _, rows, _ = whole
    finished = killed_at_random_moments(tmp_path, kills=1, seed=0)
    check_nothing_is_lost_or_run_twice(tmp_path, finished, rows)


@pytest.mark.slow
def test_a_grid_that_is_killed_ten_times_goes_on_where_it_was(whole, tmp_path):
    _, rows, _ = whole
    finished = killed_at_random_moments(tmp_path, kills=10, seed=1)
    check_nothing_is_lost_or_run_twice(tmp_path, finished, rows)
