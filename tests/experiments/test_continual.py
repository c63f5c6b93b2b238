"""Class-incremental training on digits, five steps of two classes."""

import random

import pytest

from experiments import continual
from gift_jax.configs import digits
from gift_jax.pipeline import job, labelling, results
from gift_jax.report.summary import summary_table
from gift_jax.runtime.errors import InputError
from gift_jax.specs.continual import class_order
from tests import launch

SMALL = {
    "teacher.name": "conv1",
    "teacher.width": 8,
    "teacher.epochs": 2,
    "teacher.min_accuracy": 0.0,
    "distilled.ipc": 2,
    "augment.diffaug": "crop",
    "student.name": "conv1",
    "student.width": 4,
    "loss.name": "gift",
    "optimizer.name": "adamw",
    "train.epochs": 4,
    "train.seeds": (0,),
    "continual.orders": (1,),
}
# What a training takes differs between runs of it.
TIMES = ("train_seconds",)


def small_config(**fields):
    config = digits.get_config()
    continual.study(config)
    config.update_from_flattened_dict({**SMALL, **fields})
    return config


@pytest.fixture(scope="module")
def finished(one_device, tmp_path_factory):
    """With the labels of one teacher; test_identity.py runs two, untrained."""
    directory = tmp_path_factory.mktemp("continual")
    config = small_config(**{"continual.teachers": "masked"})
    return directory, job.run_job(config, directory)


@pytest.fixture(scope="module")
def of_all_teachers(one_device, tmp_path_factory):
    directory = tmp_path_factory.mktemp("teachers")
    return directory, job.run_job(small_config(), directory)


def in_order(rows):
    """Several processes write rows as they come."""
    return sorted(rows, key=lambda row: row["run_id"])


def by_step(rows, teacher):
    return [r for r in rows if r["continual_teacher"] == teacher]


@pytest.mark.slow
def test_a_student_for_every_step_and_teacher(of_all_teachers):
    directory, rows = of_all_teachers
    found = [(r["continual_teacher"], r["continual_step"]) for r in rows]
    assert found == [
        (teacher, step)
        for teacher in ("future", "masked", "retrained")
        for step in range(1, 6)
    ]
    assert in_order(results.read_results(directory)) == in_order(rows)
    assert "| masked    |" in summary_table(rows)
    # One teacher of all classes, and five that know the classes so far.
    assert len(list((directory / "teacher").glob("conv1*"))) == 6
    assert len(list((directory / "distilled").glob("random*"))) == 1


def test_a_student_for_every_step(finished):
    directory, rows = finished
    assert [row["continual_step"] for row in rows] == [1, 2, 3, 4, 5]
    assert in_order(results.read_results(directory)) == in_order(rows)
    assert len(list((directory / "teacher").glob("conv1*"))) == 1
    assert len(list((directory / "soft_labels").glob("random*"))) == 5


def test_tasks_of_equal_size_have_the_accuracy_as_their_mean(finished):
    """Digits have 36 test images a class."""
    for row in finished[1]:
        step = row["continual_step"]
        tasks = [row[f"top1_task{task}_last"] for task in range(1, step + 1)]
        assert f"top1_task{step + 1}_last" not in row
        assert sum(tasks) / step == pytest.approx(row["top1_last"])
        assert row["continual_order"] == 1 and row["continual_steps"] == 5


@pytest.mark.slow
def test_when_all_classes_have_been_seen_nothing_is_masked(of_all_teachers):
    rows = of_all_teachers[1]
    future, masked = (by_step(rows, name)[-1] for name in ("future", "masked"))
    assert future["trained_on"] == masked["trained_on"]
    assert future["top1_last"] == masked["top1_last"]
    assert future["run_id"] != masked["run_id"]
    earlier = [by_step(rows, name)[2] for name in ("future", "masked")]
    assert earlier[0]["trained_on"] != earlier[1]["trained_on"]


@pytest.mark.slow
def test_labels_are_those_of_the_classes_so_far(of_all_teachers):
    """Logits of a step are columns of those of the teacher of all classes."""
    directory, rows = of_all_teachers

    def logits(teacher, step):
        row = by_step(rows, teacher)[step - 1]
        place = directory / "soft_labels" / row["soft_labels_dir"]
        return labelling.open_labels(place).start_reading(3)().logits

    for step in (1, 4):
        future, masked = logits("future", step), logits("masked", step)
        assert future.shape == (4 * step, 10)
        assert (future[:, : 2 * step] == masked).all()
        assert logits("retrained", step).shape == masked.shape
    assert class_order(1, 10)[:4] == (2, 9, 6, 4)


def test_another_start_finds_everything(finished):
    directory, rows = finished
    config = small_config(**{"continual.teachers": "masked"})
    assert job.run_job(config, directory) == rows


def test_what_does_not_go_together_is_refused_at_once(tmp_path):
    with pytest.raises(InputError, match=r"continual\.steps is 3, by which 10 classes"):
        job.run_job(small_config(**{"continual.steps": 3}), tmp_path)
    of_directions = "standardized_gift-length_weight=0.0"
    loss = {
        "loss.name": f"gift+{of_directions}",
        "continual.teachers": "masked",
    }
    with pytest.raises(InputError, match=rf"{of_directions}', for 2 classes"):
        job.run_job(small_config(**loss), tmp_path)
    assert not (tmp_path / "teacher").exists()


def files_in(workdir):
    """How many there are; some vanish while they are counted."""
    try:
        return sum(1 for _ in workdir.rglob("*"))
    except FileNotFoundError:
        return 0


def kill_after(started, workdir, files):
    """Kills a start that has made so many files, if it does not end before."""
    enough = files_in(workdir) + files
    with started as process:
        process.wait_until(
            lambda: (
                files_in(workdir) >= enough or process.processes[0].poll() is not None
            ),
            600,
        )


@pytest.mark.slow
def test_ten_kills_lose_nothing(tmp_path):
    """At moments told by how many files a start has made, however slow it is."""
    arguments = [
        "--config=configs/digits.py",
        *(f"--config.{name}={value}" for name, value in SMALL.items()),
        "--config.continual.teachers=retrained",
        "--config.train.epochs=6",
        "--config.train.checkpoint_every=1",
        "--config.train.processes=1",
    ]

    def start(workdir, logs):
        return launch.Processes(
            [*arguments, f"--workdir={tmp_path / workdir}"],
            tmp_path / logs,
            module="experiments.continual",
        )

    rng, finished = random.Random(0), []
    killed = tmp_path / "killed"
    for number in range(10):
        kill_after(start("killed", f"logs{number}"), killed, rng.randint(1, 60))
        finished.append(len(results.read_results(killed)))
    print(finished)
    with start("killed", "last") as process:
        assert process.wait(600) == [0], process.output()
    with start("whole", "logs") as process:
        assert process.wait(600) == [0], process.output()
    ours, theirs = (
        {
            row["run_id"]: {k: v for k, v in row.items() if k not in TIMES}
            for row in results.read_results(tmp_path / workdir)
        }
        for workdir in ("killed", "whole")
    )
    assert len(theirs) == 5
    assert ours == theirs
