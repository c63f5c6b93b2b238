"""Studies of architectures and of the theory on digits, in seconds."""

import pytest

from experiments import cross_architecture, theory
from gift_jax import models, specs
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
