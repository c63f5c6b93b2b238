"""Every study is a grid that its config can be expanded to."""

import importlib
import pathlib

import pytest

from experiments import falsification
from gift_jax import specs
from gift_jax.configs import cifar100, digits

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "experiments"
STUDIES = sorted(p.stem for p in FOLDER.glob("*.py") if "\ndef study(" in p.read_text())


def jobs_of(name, config):
    importlib.import_module(f"experiments.{name}").study(config)
    return specs.expand(config)


def job_settings(job):
    made = (job.teacher, job.distilled, job.augment, job.relabel)
    return (*made, job.continual, job.train)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_a_grid_of_settings_that_differ(name):
    jobs = jobs_of(name, digits.get_config())
    seen = [repr((*job_settings(job), *setup)) for job in jobs for setup in job.setups]
    assert len(set(seen)) == len(seen) > 1
    assert all(len(setup) >= 3 for job in jobs for setup in job.setups)


def optimizers_of(jobs):
    return {s.optimizer.name for job in jobs for s, *_ in job.setups}


@pytest.mark.parametrize("name", STUDIES)
def test_muon_is_a_column_of_every_study(name):
    assert "muon" in optimizers_of(jobs_of(name, digits.get_config()))


@pytest.mark.parametrize("name", STUDIES)
def test_kl_with_its_factor_stands_beside_every_loss(name):
    jobs = jobs_of(name, digits.get_config())
    labels = {s.loss.label for job in jobs for s, *_ in job.setups}
    assert "kl-t_squared=True" in labels


def test_published_images_are_falsified_at_their_own_ipc():
    for path, ipcs in (("", {1, 10}), ("data.pt", {10})):
        config = digits.get_config(f"distilled.path={path},ipc=10")
        falsification.study(config)
        assert len(config.variants) == (14 if path else 15)
        jobs = specs.expand(config)
        assert {job.distilled.ipc for job in jobs} == ipcs


def test_a_rate_that_is_found_is_a_control_of_the_optimizers():
    jobs = jobs_of("cross_optimizer", digits.get_config())
    assert optimizers_of(jobs) == {"sgd", "adam", "adamw", "muon", "prodigy"}


def test_the_budget_has_every_way_to_fewer_bytes_under_four_losses():
    jobs = jobs_of("soft_label_budget", cifar100.get_config("epochs=300"))
    assert {s.loss.label for job in jobs for s, *_ in job.setups} == {
        *("kl", "kl-t_squared=True", "soft_ce", "gift")
    }
    cells = {(job.views, job.relabel.format) for job in jobs}
    formats = ("float16", "int8", "top20", "top10", "top5", "top1")
    assert {(300, form) for form in formats} | {(30, form) for form in formats} <= cells
    assert {(views, "float16") for views in (1, 3, 10, 30, 100, 300)} <= cells


def test_any_study_takes_hard_labels_as_a_further_column():
    config = digits.get_config()
    importlib.import_module("experiments.cross_optimizer").study(config)
    config.variants = ("", "relabel.source=hard,loss=ce")
    soft, hard = specs.expand(config)
    assert {s.loss.label for s, *_ in hard.setups} == {"ce"}
    assert optimizers_of([hard]) == optimizers_of([soft])
    assert (hard.relabel.needs_teacher, hard.distilled) == (False, soft.distilled)


def test_hald_has_a_third_of_the_epochs_with_soft_labels():
    jobs = jobs_of("hard_labels", digits.get_config("epochs=300"))
    hald = [job for job in jobs if job.relabel.hard_epochs]
    assert {job.relabel.hard_epochs for job in hald} == {200}
    assert {job.views for job in hald} == {100}
    hard = [job for job in jobs if job.relabel.source == "hard"]
    assert not any(job.relabel.needs_teacher for job in hard)
    # RDED's images are made with one.
    assert [job.needs_teacher for job in hard] == [False, True]
