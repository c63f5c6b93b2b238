"""Tests of `gift_jax.report.figure_data`: the numbers beside figures."""

import numpy as np
import pytest
from scipy import stats

from gift_jax.report import examples, figure_data, reading
from tests.report.rows import DEFAULT_RATE, GIFT, KL, RATES, choice, compared, row, rows


def records(data):
    head, *lines = data
    return [dict(zip(head, line, strict=True)) for line in lines]


def test_runs_stand_with_mean_and_interval_of_their_group():
    lost = row("gift", 4, 12.5, status="diverged")
    found = records(
        figure_data.of_runs(compared([*rows("kl", KL), *rows("gift", GIFT), lost]))
    )
    assert [r["top1_last"] for r in found] == [*KL, *GIFT, 12.5]
    assert [r["status"] for r in found] == [*["finished"] * 8, "diverged"]
    assert found[-1]["mean"] == np.mean(GIFT)
    assert [r["seed"] for r in found] == [0, 1, 2, 3, 0, 1, 2, 3, 4]
    assert found[0] | {"half_width": 0} == {
        "optimizer": "adamw", "learning_rate": DEFAULT_RATE, "weight_decay": 0.0001,
        "schedule": "step", "loss": "kl", "rate": None, "seed": 0,
        "status": "finished", "top1_last": 50.0, "mean": np.mean(KL), "half_width": 0,
    }  # fmt: skip
    # Student's t of 3 degrees of freedom is 3.182.
    width = 3.182446 * np.std(KL, ddof=1) / 2
    assert found[0]["half_width"] == pytest.approx(width, rel=1e-6)


def test_settings_that_tell_groups_apart_stand_there():
    several = compared(
        [*rows("kl", KL, ipc=1), *rows("kl", KL, ipc=50, soft_label_bytes=7)]
    )
    found = records(figure_data.of_runs(several))
    assert [r["ipc"] for r in found] == [1] * 4 + [50] * 4
    assert found[-1]["soft_label_bytes"] == 7
    assert "dataset" not in found[0]


def test_differences():
    found = records(
        figure_data.of_differences(compared([*rows("kl", KL), *rows("gift", GIFT)]))
    )
    of_gift = found[1]
    assert (of_gift["loss"], of_gift["baseline"], of_gift["pairs"]) == ("gift", "kl", 4)
    assert of_gift["difference"] == pytest.approx(np.mean(GIFT) - np.mean(KL))
    width = stats.t.ppf(0.975, 3) * np.std(np.subtract(GIFT, KL), ddof=1) / 2
    assert of_gift["half_width"] == pytest.approx(width)


def test_learning_rates_that_were_tried_ascend():
    found = records(figure_data.of_choices([choice("kl", RATES[2])]))
    assert [r["learning_rate"] for r in found] == RATES
    assert [r["is_chosen"] for r in found] == [False, False, True, False]
    assert [r["is_default"] for r in found] == [False, True, False, False]
    assert [r["top1"] for r in found] == [50.0, 50.0, 50.0, None]


def test_curves_are_long():
    runs = rows("kl", KL[:2])
    train, test = np.array([[1, 10.0], [2, 20.0]]), np.array([[2, 30.0]])
    curve = reading.Curve(train, test, np.empty((0, 2)))
    curves = {reading.run_key(runs[1]): curve}  # the other has recorded nothing
    found = records(figure_data.of_curves(compared(runs), curves, "train", "test"))
    assert [(r["seed"], r["quantity"], r["epoch"], r["value"]) for r in found] == [
        (1, "train", 1, 10.0), (1, "train", 2, 20.0), (1, "test", 2, 30.0)
    ]  # fmt: skip


def test_examples_have_all_probabilities():
    images = np.ones((2, 4, 4, 1))
    shown = examples.Examples("x", images, np.array([3, 5]), probabilities=np.eye(2))
    assert figure_data.of_examples(shown) == [
        ["hard label", "class 0", "class 1"], [3, 1.0, 0.0], [5, 0.0, 1.0]
    ]  # fmt: skip
    without = examples.Examples("x", images, np.array([3, 5]))
    assert figure_data.of_examples(without) == [["hard label"], [3], [5]]
