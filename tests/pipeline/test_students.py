"""Students of a job: names, batches, metrics, and students that go on."""

import json

import jax
import numpy as np
import pytest

from gift_jax import losses
from gift_jax.pipeline import job, results
from gift_jax.runtime import preemption
from gift_jax.train import checkpoint
from tests.pipeline.test_job import RUN, final_variables, small_config

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("students")
    return directory, job.run_job(small_config(), directory)[0]


@pytest.mark.slow
def test_a_batch_size_that_is_not_the_official_one_is_in_the_name(finished):
    directory, row = finished
    assert (row["run_id"], row["batch_size"]) == (RUN, 50)
    (other,) = job.run_job(small_config(train__batch_size=10), directory)
    assert other["run_id"] == RUN.replace("_e4_", "_e4_b10_")
    assert other["batch_size"] == 10


def test_a_name_that_no_file_can_have_is_cut_and_stays_its_own(finished):
    directory, _ = finished
    long = "standardized_gift-correct=True-gamma=0.2-alpha=0.25-temperature=1.5"
    optimizer = "adamw-decay_vectors=False-schedule=smoothed_cosine-warmup_epochs=2"
    rows = [
        job.run_job(
            small_config(
                loss__name=f"{long}-length_weight={weight}",
                optimizer__name=f"{optimizer}-ema=0.99-weight_decay=0.05",
            ),
            directory,
        )[0]
        for weight in (0.25, 0.75)
    ]
    names = [row["run_id"] for row in rows]
    assert names[0] != names[1]
    assert all(len(name) <= 200 for name in names)
    assert all((directory / "runs" / name / "metrics.jsonl").exists() for name in names)


def test_an_option_that_is_a_path_makes_no_directories(finished):
    directory, _ = finished
    loss = "tests.pipeline.test_students:of_a_table-table"
    rows = [
        job.run_job(small_config(loss__name=f"{loss}={table}"), directory)[0]
        for table in ("a/b.npy", "a_b.npy")
    ]
    names = [row["run_id"] for row in rows]
    assert names[0] != names[1]
    assert all((directory / "runs" / name / "metrics.jsonl").exists() for name in names)
    assert rows[0]["loss"] == f"{loss}=a/b.npy"


def of_a_table(student_logits, teacher_logits, labels, *, table=""):
    return losses.gift(student_logits, teacher_logits, labels)


def test_metrics_hold_every_epoch_and_what_was_evaluated(finished):
    directory, row = finished
    text = (directory / "runs" / RUN / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3]
    assert all({"loss", "top1", "gradient_norm"} <= line.keys() for line in lines)
    assert max(line["test_top1"] for line in lines) == row["top1_best"]
    assert lines[-1]["test_top5"] == row["top5_last"]


def test_a_student_that_is_asked_to_stop_in_an_epoch_ends_the_same(
    finished, tmp_path, monkeypatch
):
    directory, _ = finished
    steps = []

    def asked():
        # Twenty images in batches of five: in the middle of the second epoch.
        steps.append(None)
        return len(steps) == 6

    read, restore_weights = [], checkpoint.restore_weights

    def restored(run_directory, state):
        read.append(run_directory)
        return restore_weights(run_directory, state)

    monkeypatch.setattr(checkpoint, "restore_weights", restored)
    source = str(directory / "runs" / RUN)
    whole = small_config(train__batch_size=5, train__init_from=source)
    (expected,) = job.run_job(whole, directory)
    with monkeypatch.context() as patch:
        patch.setattr("gift_jax.train.fit.preemption.agreed", asked)
        # The teacher's training asks, too.
        patch.setattr(
            "gift_jax.pipeline.teacher.train_teacher", trained_before(directory)
        )
        with pytest.raises(preemption.PreemptedError):
            job.run_job(whole, tmp_path)
    assert len(steps) == 6
    assert results.read_results(tmp_path) == []
    (resumed,) = job.run_job(whole, tmp_path)
    # Not where it goes on from a checkpoint.
    assert len(read) == 2
    for name in ("run_id", "top1_last", "top1_best", "gradient_norm_first"):
        assert resumed[name] == expected[name], name
    path = f"runs/{expected['run_id']}"
    ours, theirs = ((d / path / "metrics.jsonl") for d in (tmp_path, directory))
    assert ours.read_text() == theirs.read_text()
    jax.tree.map(
        np.testing.assert_array_equal,
        final_variables(tmp_path / path),
        final_variables(directory / path),
    )


def trained_before(directory):
    """Gives the teacher that another work directory has."""
    from gift_jax.teachers import flax_teacher

    def train_teacher(model, split, *args, **kwargs):
        return flax_teacher.load_teacher(
            directory / "teacher" / "conv1-width=16", model, (8, 8, 1)
        )

    return train_teacher
