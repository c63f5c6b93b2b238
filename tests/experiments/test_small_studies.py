"""Studies on digits, in seconds; test_continual.py has that of classes in steps."""

import functools
import importlib
import math

import pytest

from experiments import cross_architecture, theory
from gift_jax import models, registry, specs
from gift_jax.configs import cifar10, digits
from gift_jax.pipeline import job
from gift_jax.report import build

pytestmark = pytest.mark.usefixtures("one_device")

SMALL = {
    "teacher.name": "conv1",
    "teacher.width": 8,
    "teacher.epochs": 2,
    "teacher.min_accuracy": 0.0,
    "distilled.ipc": 1,
    "distilled.rded.images_per_class": 4,
    "augment.diffaug": "crop",
    "student.name": "conv1",
    "student.width": 8,
    "loss.name": "gift",
    "optimizer.name": "adamw",
    "train.epochs": 2,
    "train.seeds": (0,),
}


def run(study, directory, **fields):
    config = digits.get_config()
    study(config)
    config.update_from_flattened_dict({**SMALL, **fields})
    return job.run_job(config, directory)


# Students of the first two variants, and twice as many where rates are tuned.
ROWS = {
    "ablation": 2,
    "cross_optimizer": 4,
    "dataset_scale": 4,
    "falsification": 4,
    "hard_labels": 3,  # hard labels have one loss
    "loss_parts": 2,
    "loss_sensitivity": 2,
    "optimizer_parts": 2,
    "paper_tables": 4,
    "soft_label_budget": 4,
    "universal_loss": 2,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Runs a study once: its first and last loss, one optimizer, three epochs.

    Studies share a work directory, and what another has made there. Those that tune
    hold images out, and so have another teacher.
    """
    directories = {tuned: tmp_path_factory.mktemp("shared") for tuned in (True, False)}

    @functools.cache
    def of(name):
        config = digits.get_config("epochs=3")
        importlib.import_module(f"experiments.{name}").study(config)
        losses = registry.names(config.loss.name)
        config.update_from_flattened_dict(
            {
                **SMALL,
                "distilled.name": "rded",
                "distilled.rded.images_per_class": 12,
                "loss.name": f"{losses[0]}+{losses[-1]}",
                "train.epochs": 3,
                "tuning.factors": (0.5, 1.0, 2.0),
                "variants": config.variants[:2],
            }
        )
        directory = directories[config.tuning.enabled]
        return directory, job.run_job(config, directory), {losses[0], losses[-1]}

    return of


@pytest.mark.parametrize("name", ROWS)
def test_a_study_has_a_row_for_every_student(name, finished):
    directory, rows, losses = finished(name)
    assert len(rows) == ROWS[name]
    assert {row["loss"] for row in rows} >= losses
    for row in rows:
        assert row["status"] == "finished"
        assert math.isfinite(row["top1_last"])
    assert len(list((directory / "teacher").glob("conv1*"))) == 1


def test_studies_have_a_report(finished, tmp_path):
    runs = [finished(name) for name in ROWS]
    build.write_report(sorted({directory for directory, *_ in runs}), tmp_path)
    table = (tmp_path / "accuracy.csv").read_text()
    for _, _, losses in runs:
        assert all(loss in table for loss in losses)
    assert (tmp_path / "report.html").is_file()


@pytest.mark.slow
def test_networks_are_teachers_and_students(tmp_path):
    networks = "conv1+conv2"
    rows = run(
        cross_architecture.study,
        tmp_path,
        **{"teacher.name": networks, "student.name": networks},
    )
    names = [(row["teacher"], row["student"]) for row in rows]
    wide = ["conv1-width=8", "conv2-width=8"]
    assert names == [(teacher, student) for teacher in wide for student in wide]
    assert len({row["distilled_fingerprint"] for row in rows}) == 2
    build.write_report([tmp_path], tmp_path / "report")
    text = (tmp_path / "report" / "cross_architecture.csv").read_text()
    assert (
        text.splitlines()[0]
        == "loss,distilled with,conv1-width=8,conv2-width=8,mean drop"
    )
    assert len(text.splitlines()) == 3


def test_the_networks_of_the_study_take_images_of_cifar():
    config = cifar10.get_config()
    cross_architecture.study(config)
    jobs = specs.expand(config)
    assert len(jobs) == 5
    for students in jobs[0].setups:
        network = students[0].network
        models.create_model(
            network.name, num_classes=10, image_size=32, **dict(network.options)
        )


@pytest.mark.slow
def test_the_bound_is_measured_and_correlated(tmp_path):
    rows = run(
        theory.study,
        tmp_path,
        **{"loss.name": "gift+ce+soft_ce+mse", "train.eval_every": 1},
    )
    for row in rows:
        bound = row["alignment_last"] - row["spread_last"]
        assert row["info_nce_last"] == pytest.approx(bound, abs=1e-4)
        assert row["info_nce_last"] <= row["info_nce_ceiling_last"]
        assert row["scaled_nll_last"] <= row["nll_last"] + 0.1
        assert row["last_layer_length_last"] > 0
    build.write_report([tmp_path], tmp_path / "report")
    text = (tmp_path / "report" / "rank_correlations.csv").read_text()
    assert "info nce" in text and "n = 4" in text
    assert (tmp_path / "report" / "measurements.png").is_file()
