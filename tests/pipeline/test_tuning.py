"""The search for a learning rate, on accuracies that are known beforehand."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gift_jax import specs
from gift_jax.pipeline import job, results, tuning
from tests.pipeline.test_job import small_config

pytestmark = pytest.mark.usefixtures("one_device")

FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)


def search(accuracy, default=0.01, most=100):
    """Tries rates as `tune` does; the rates in the order they were tried."""
    tried = {tuning._rounded(default * f): None for f in FACTORS}
    tried = {rate: accuracy(rate) for rate in tried}
    while rates := tuning.next_rates(tried, FACTORS):
        assert not set(rates) & tried.keys()
        tried |= {rate: accuracy(rate) for rate in rates}
        if len(tried) > most:
            break
    return tried


@pytest.mark.parametrize(
    "top1", [lambda rate: None, lambda rate: min(90, 50 + 5 * math.log10(rate))]
)
def test_a_search_without_an_end_is_ended(top1):
    def run(students, *, split):
        assert split == "validation"
        for student in students:
            found = top1(student.optimizer.learning_rate)
            yield {
                "learning_rate": student.optimizer.learning_rate,
                "top1_last": found,
                "status": "diverged" if found is None else "finished",
            }

    (spec, *_) = specs.expand(small_config(optimizer__name="sgd"))
    asked = specs.TuningSpec(True, 100, FACTORS, (0, 1))
    found = tuning.tune(run, spec.setups[0][0], asked, on_trained=lambda: None)
    assert len(found["tried"]) == len(FACTORS) + tuning._MOST_BEYOND
    assert (found["learning_rate"] is None) == (top1(1.0) is None)


@given(peak=st.floats(-6, 3))
def test_the_peak_of_a_smooth_curve_is_found_wherever_it_is(peak):
    def accuracy(rate):
        return 100 - (math.log10(rate) - peak) ** 2

    tried = search(accuracy)
    best = tuning.best_rate(tried, 0.01)
    # The nearest of the rates 1, 3, 10, 30, ...
    assert abs(math.log10(best) - peak) <= 0.27
    rates = sorted(tried)
    assert 2 <= rates.index(best) <= len(rates) - 3


def test_one_worse_rate_beside_the_best_does_not_end_the_search():
    # KL on digits: a dip at 0.3 hides the peak behind it.
    accuracies = {0.03: 23.0, 0.1: 39.0, 0.3: 37.0, 1.0: 60.0, 3.0: 70.0}

    def accuracy(rate):
        return accuracies.get(rate, 10.0)

    assert tuning.best_rate(search(accuracy), 0.01) == 3.0


def test_rates_at_which_training_diverges_end_the_search_upwards():
    tried = search(lambda rate: None if rate > 0.1 else 50 + rate)
    assert tuning.best_rate(tried, 0.01) == 0.1
    assert sorted(tried)[-2:] == [0.3, 1.0]


def test_equal_rates_need_no_search_and_the_default_is_chosen():
    tried = search(lambda rate: 10.0)
    assert len(tried) == len(FACTORS)
    assert tuning.best_rate(tried, 0.01) == 0.01


def test_where_all_diverge_lower_rates_are_tried():
    tried = search(lambda rate: None if rate > 1e-6 else 20.0)
    assert tuning.best_rate(tried, 0.01) == 1e-6


def tuned_config(**fields):
    config = small_config(optimizer__name="sgd", **fields)
    config.tuning.enabled = True
    config.tuning.validation_images = 200
    config.tuning.factors = (1.0, 10.0, 100.0)
    config.train.seeds = (0, 1)
    return config


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tuned")
    return directory, job.run_job(tuned_config(), directory)


def test_the_rate_is_chosen_on_held_out_images_and_measured_on_the_test_split(tuned):
    directory, rows = tuned
    (line,) = (directory / results.TUNING_FILE).read_text().splitlines()
    choice = json.loads(line)
    rate = choice["learning_rate"]
    assert choice["default_learning_rate"] == 0.01
    assert choice["validation_images"] == 200 and choice["seeds"] == [0]
    accuracies = {t["learning_rate"]: t["top1"] for t in choice["tried"]}
    assert accuracies[rate] == max(a for a in accuracies.values() if a is not None)
    # Percent of 200 images, not of the 360 of the test split.
    assert all(a * 2 == pytest.approx(round(a * 2)) for a in accuracies.values() if a)
    assert {(r["learning_rate"], r["seed"]) for r in rows} == {
        (0.01, 0), (0.01, 1), (rate, 0), (rate, 1)
    }  # fmt: skip
    assert results.read_results(directory) == rows
    # What tells setups apart is the same in both files.
    for name in set(results.TUNING_SETTINGS) & rows[0].keys():
        assert choice[name] == rows[0][name], name
    teacher = json.loads((directory / "teacher/conv1-width=16/recipe.json").read_text())
    assert teacher["dataset"]["validation_images"] == 200


def test_a_second_start_tunes_nothing_again(tuned, monkeypatch):
    directory, rows = tuned
    before = (directory / results.TUNING_FILE).read_text()

    def fail(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr("gift_jax.train.fit.train_epochs", fail)
    assert job.run_job(tuned_config(), directory) == rows
    assert (directory / results.TUNING_FILE).read_text() == before


@pytest.mark.slow
def test_of_students_at_once_one_may_diverge(tmp_path):
    config = tuned_config(train__students_at_once=3, loss__name="mse")
    config.tuning.factors, config.train.seeds = (1.0, 10.0, 1e32), (0,)
    rows = job.run_job(config, tmp_path)
    (line,) = (tmp_path / results.TUNING_FILE).read_text().splitlines()
    tried = {t["learning_rate"]: t["top1"] for t in json.loads(line)["tried"]}
    assert tried[1e30] is None
    assert None not in (tried[0.01], tried[0.1])
    assert {row["status"] for row in rows} == {"finished"}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("optimizer__learning_rate", 0.1, "leave one of them out"),
        ("tuning__validation_images", 1437, "fewer"),
    ],
)
def test_mistakes(tmp_path, field, value, message):
    config = tuned_config()
    section, name = field.split("__")
    config[section][name] = value
    with pytest.raises(ValueError, match=message):
        job.run_job(config, tmp_path)


def test_a_rate_is_judged_by_all_its_seeds():
    """By their mean; where one diverged it is not chosen, however good the other is."""
    tops = {0.01: (50.0, 52.0), 0.1: (60.0, 20.0), 1.0: (90.0, None)}

    def run(students, *, split):
        for student in students:
            rate = student.optimizer.learning_rate
            found = tops.get(rate, (10.0, 10.0))[student.seed]
            status = "diverged" if found is None else "finished"
            yield {"learning_rate": rate, "top1_last": found, "status": status}

    (spec, *_) = specs.expand(small_config(optimizer__name="sgd"))
    asked = specs.TuningSpec(True, 100, (1.0, 1.0, 10.0, 100.0), (0, 1))
    found = tuning.tune(run, spec.setups[0][0], asked, on_trained=lambda: None)
    tried = {t["learning_rate"]: t["top1"] for t in found["tried"]}
    assert (tried[0.01], tried[0.1], tried[1.0]) == (51.0, 40.0, None)
    assert found["learning_rate"] == 0.01


def test_of_equal_rates_the_one_by_the_smaller_factor_is_chosen():
    assert tuning.best_rate({0.01: 60.0, 0.03: 50.0, 0.3: 60.0}, default=0.1) == 0.3
