"""Tests of `gift_jax.report.gradients`: ratios, ends of training, the T^2 question."""

import pathlib

import numpy as np
import pytest
from test_report_statistics import GIFT, KL, row, rows

from gift_jax.report import comparison, gradients, reading, statistics

LOSS = "kl-t_squared=True"
SGD = {"optimizer": "sgd", "learning_rate": 0.01}
NORMS = {"kl": (0.002, 0.003), LOSS: (0.8, 1.2), "gift": (0.3, 0.9)}


def with_norms(loss, accuracies, **fields):
    workdir = {"workdir": pathlib.Path("work")}
    return [
        {**one, **workdir, "gradient_norm_first": norm}
        for one, norm in zip(rows(loss, accuracies, **fields), NORMS[loss], strict=True)
    ]


@pytest.fixture
def groups():
    return statistics.group_rows(
        [
            *with_norms("kl", [10.0, 11.0], **SGD),
            *with_norms(LOSS, [50.0, 51.5], **SGD),
            *with_norms("gift", [53.0, 55.0], **SGD),
            *with_norms("kl", KL[:2]),
            *with_norms(LOSS, GIFT[:2]),
        ]
    )


def curve(norms):
    epochs = np.arange(1.0, len(norms) + 1)
    nothing = np.empty((0, 2))
    return reading.Curve(nothing, nothing, np.column_stack([epochs, norms]))


def test_norms_and_their_ratios_to_the_baseline(groups):
    keys = [reading.run_key(run) for run in groups[1].finished.values()]
    curves = {keys[0]: curve([1.0, 0.5]), keys[1]: curve([1.0, 0.7])}
    table = gradients.gradient_table(
        comparison.compare(groups, "kl"), ["kl", LOSS, "gift"], curves
    )
    texts = [[cell.text for cell in line] for line in table.rows]
    assert table.header[2:] == [
        "loss", "at initialisation", "over kl", "in the last epoch", "top-1",
    ]  # fmt: skip
    assert texts[0][2:6] == ["kl", "0.0025", "1", "\N{EN DASH}"]
    assert texts[1][2:6] == [LOSS, "1", "400", "0.6"]
    # The ratio is that of the two runs of a seed: (150 + 300) / 2.
    assert texts[2][2:5] == ["gift", "0.6", "225"]
    assert [line[0] for line in texts] == ["sgd"] * 3 + ["adamw"] * 2


def test_runs_that_diverged_began_as_the_others():
    broken = row("gift", 0, None, status="diverged", gradient_norm_first=4.0)
    table = gradients.gradient_table(
        comparison.compare(statistics.group_rows([broken]), None), ["gift"], {}
    )
    assert [cell.text for cell in table.rows[0]] == [
        "gift", "4", "\N{EN DASH}", "\N{EN DASH}", "1 of 1 diverged",
    ]  # fmt: skip


def test_rows_without_norms_have_no_table():
    groups = statistics.group_rows(rows("kl", KL))
    assert (
        gradients.gradient_table(comparison.compare(groups, None), ["kl"], {}) is None
    )
    assert gradients.t_squared_table(groups, []) is None


def test_the_question_of_t_squared_has_an_answer_for_every_optimizer(groups):
    table = gradients.t_squared_table(groups, [])
    texts = [[cell.text for cell in line] for line in table.rows]
    assert texts[0][:6] == [
        "sgd", "0.01", "400", "10.50 ± 0.71", "50.75 ± 1.06", "+40.25",
    ]  # fmt: skip
    assert texts[1][:3] == ["adamw", "0.001", "400"]
    difference = statistics.summarize(np.subtract(GIFT[:2], KL[:2]))
    assert texts[1][5] == f"{difference.mean:+.2f}"
    # It is asked of KL and KL times T^2 whatever the baseline of the report.
    assert LOSS in table.header
    assert "gift" not in table.header
