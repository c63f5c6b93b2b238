"""Tests of `gift_jax.report.tables`: what is in the cells."""

import numpy as np
import pytest
from scipy import stats

from gift_jax.report import groups, markup, reading, statistics, tables
from tests.report.rows import (
    DEFAULT_RATE,
    GIFT,
    KL,
    RATES,
    T_SQUARED,
    choice,
    choices,
    compared,
    row,
    rows,
    texts,
)

ABSENT = "\N{EN DASH}"
SGD = {"optimizer": "sgd", "learning_rate": 0.01}
TUNED_KL = [54.0, 55.0, 55.5, 51.5]
TUNED_GIFT = [54.5, 56.0, 57.0, 53.5]
NORMS = {"kl": (0.002, 0.003), T_SQUARED: (0.8, 1.2), "gift": (0.3, 0.9)}


def made(all_rows, baseline="kl"):
    all_groups = compared(all_rows, baseline)
    losses = list(dict.fromkeys(group.loss for group in all_groups))
    return (
        tables.accuracy_table(all_groups, losses),
        tables.comparison_table(all_groups, losses),
        tables.summary_rows(all_groups),
    )


def test_accuracy_has_a_row_an_optimizer_and_a_column_a_loss():
    accuracy, *_ = made(
        rows("kl", KL) + rows("gift", GIFT) + rows("kl", [9.0, 10.0, 11.0, 12.0], **SGD)
    )
    assert accuracy.header == ["optimizer", "learning rate", "kl", "gift"]
    assert texts(accuracy) == [
        ["adamw", "0.001", "50.62 ± 1.49", "52.88 ± 2.02"],
        ["sgd", "0.01", "10.50 ± 1.29", ABSENT],
    ]
    assert [cell.verdict for cell in accuracy.cells[0]] == [0, 0, 0, 1]
    assert "n = 4 seeds" in accuracy.caption


def test_other_images_have_a_row_of_their_own():
    accuracy, comparison, summary = made(
        rows("kl", KL)
        + rows("gift", GIFT)
        + rows("gift", GIFT, dataset_fingerprint="89abcdef01234567")
    )
    assert accuracy.header == ["dataset fingerprint", "kl", "gift"]
    assert [line[0] for line in texts(accuracy)] == ["fedcba", "89abcd"]
    assert texts(accuracy)[1][1] == ABSENT
    assert texts(comparison)[2][-3:] == [ABSENT] * 3
    assert summary[2]["dataset_fingerprint"] == "89abcdef01234567"
    assert [one["pairs"] for one in summary] == [0, 4, 0]


def test_many_losses_are_rows():
    losses = ["kl", *(f"gift-gamma={i}" for i in range(8))]
    accuracy, *_ = made([r for loss in losses for r in rows(loss, KL)])
    assert accuracy.header == ["loss", "top-1"]
    assert [line[0] for line in texts(accuracy)] == losses


def test_comparison_states_interval_and_pairs():
    _, comparison, _ = made(rows("kl", KL) + rows("gift", GIFT))
    baseline, gift = texts(comparison)
    assert baseline[-3:] == ["baseline", ABSENT, ABSENT]
    difference = statistics.summarize([g - k for g, k in zip(GIFT, KL, strict=True)])
    low, high = difference.interval
    assert gift[-3:] == ["+2.25", f"[{low:+.2f}, {high:+.2f}]", "4"]


def test_comparison_names_sizes_where_they_differ():
    small = rows("kl", KL, views=1, soft_label_bytes=2500)
    _, comparison, _ = made(small + rows("kl", KL, soft_label_bytes=10**6))
    assert comparison.header[:3] == ["views", "label bytes", "loss"]
    assert [line[:2] for line in texts(comparison)] == [["1", "2.5 kB"], ["40", "1 MB"]]


def test_one_seed_gives_no_interval_and_says_so():
    accuracy, comparison, _ = made(rows("kl", KL[:1]) + rows("gift", [99.0]))
    assert texts(accuracy) == [["50.00", "99.00"]]
    assert "n = 1: no standard deviation" in accuracy.caption
    assert texts(comparison)[1][-3:] == ["+49.00", "none (n = 1)", "1"]
    assert all(cell.verdict == 0 for line in accuracy.cells for cell in line)


def test_a_number_of_seeds_that_is_not_the_usual_one_is_in_the_cell():
    accuracy, *_ = made(rows("kl", KL) + rows("gift", GIFT[:2]))
    assert texts(accuracy) == [["50.62 ± 1.49", "53.50 ± 0.71 (n = 2)"]]
    assert "over n = 4 seeds where no other n is given" in accuracy.caption


def test_diverged_runs_are_shown():
    broken = [
        row("gift", s, 1.0, status="diverged", diverged_step=10 * s) for s in range(4)
    ]
    accuracy, comparison, summary = made(
        rows("kl", KL) + rows("mse", KL[:3]) + [{**broken[3], "loss": "mse"}] + broken
    )
    (line,) = texts(accuracy)
    assert line == [
        "50.62 ± 1.49",
        "51.17 ± 1.26 (1 of 4 diverged)",
        "4 of 4 diverged",
    ]
    assert texts(comparison)[1][1] == "3 (1 diverged, step 30)"
    assert texts(comparison)[2][1] == "0 (4 diverged, steps 0 to 30)"
    gift = summary[2]
    assert (gift["finished"], gift["diverged"], gift["top1_last_mean"]) == (0, 4, None)


def test_survivors_are_not_bold():
    better = [99.0, 99.1, 99.3]
    broken = row("gift", 3, None, status="diverged")
    accuracy, comparison, _ = made([*rows("kl", KL), *rows("gift", better), broken])
    assert "\\textbf" not in markup.to_latex(accuracy) + markup.to_latex(comparison)
    assert texts(comparison)[1][-2].startswith("[+")


def test_nothing_is_bold_without_a_baseline():
    accuracy, *_ = made(rows("gift", GIFT) + rows("mse", KL), baseline=None)
    assert all(cell.verdict == 0 for line in accuracy.cells for cell in line)
    assert "No baseline" in accuracy.caption


def test_bold_is_what_excludes_zero_above_and_italic_below():
    accuracy, *_ = made(rows("kl", GIFT) + rows("gift", KL) + rows("mse", GIFT))
    line = markup.to_markdown(accuracy).splitlines()[-1]
    assert "| *50.62 ± 1.49* |" in line
    assert "**" not in line


def test_summary_has_full_precision():
    *_, (kl, gift) = made(rows("kl", KL) + rows("gift", GIFT))
    assert (kl["loss"], gift["loss"]) == ("kl", "gift")
    assert gift["top1_last_mean"] == sum(GIFT) / 4
    assert gift["difference_mean"] == 2.25
    differences = [g - k for g, k in zip(GIFT, KL, strict=True)]
    for name, values in (("top1_last", GIFT), ("difference", differences)):
        sd = np.std(values, ddof=1)
        assert gift[f"{name}_sd"] == pytest.approx(sd)
        width = stats.t.ppf(0.975, 3) * sd / 2
        assert gift[f"{name}_half_width"] == pytest.approx(width)
    assert gift["top5_last_mean"] is None
    assert (gift["baseline"], gift["pairs"]) == ("kl", 4)
    assert kl.keys() == gift.keys() >= set(groups.FIELDS)


# --- Default and tuned learning rates -------------------------------------------------


@pytest.fixture
def both():
    """Both losses at the default and at a rate of their own, and one at neither."""
    all_rows = [
        *rows("kl", KL),
        *rows("gift", GIFT),
        *rows("kl", TUNED_KL, learning_rate=RATES[2]),
        *rows("gift", TUNED_GIFT, learning_rate=RATES[0]),
        *rows("gift", GIFT, learning_rate=0.5),
    ]
    return compared(all_rows, "kl", choices(kl=RATES[2], gift=RATES[0]))


def test_the_table_has_default_beside_tuned(both):
    table = tables.tuning_table(both, ["kl", "gift"])
    kl, gift = texts(table)
    assert table.header[:5] == [
        "loss",
        "default rate",
        "default",
        "tuned rate",
        "tuned",
    ]
    assert kl[:5] == ["kl", "0.001", "50.62 ± 1.49", "0.01", "54.00 ± 1.78"]
    assert gift[:5] == [
        "gift", "0.001", "52.88 ± 2.02", "0.0001 (edge)", "55.25 ± 1.55",
    ]  # fmt: skip
    gain = statistics.summarize(np.subtract(TUNED_KL, KL))
    low, high = gain.interval
    assert kl[5:] == [f"{gain.mean:+.2f}", f"[{low:+.2f}, {high:+.2f}]", "4"]
    assert [cell.verdict for cell in table.cells[1]][2] == 1


def test_the_table_says_what_is_missing():
    all_groups = compared(
        rows("kl", KL) + rows("gift", GIFT) + rows("mse", GIFT) + rows("ce", GIFT),
        "kl",
        [*choices(kl=RATES[2], gift=DEFAULT_RATE), choice("ce", None)],
    )
    found = texts(tables.tuning_table(all_groups, ["kl", "gift", "mse", "ce"]))
    assert [line[4] for line in found] == [
        "not run", "52.88 ± 2.02", "not tuned", "all diverged",
    ]  # fmt: skip
    assert found[1][5:] == ["same rate", ABSENT, ABSENT]
    assert tables.tuning_table(compared(rows("kl", KL)), ["kl"]) is None


def test_other_tables_name_kinds_of_rates(both):
    losses = ["kl", "gift"]
    accuracy = texts(tables.accuracy_table(both, losses))
    assert [line[0] for line in accuracy] == ["0.001 (default)", "tuned", "0.5"]
    assert accuracy[1][1:] == ["54.00 ± 1.78", "55.25 ± 1.55"]
    assert [line[0] for line in texts(tables.comparison_table(both, losses))] == [
        "0.001 (default)",
        "0.001 (default)",
        "0.01 (tuned)",
        "0.0001 (tuned, edge)",
        "0.5",
    ]
    gift = tables.summary_rows(both)[3]
    assert (gift["rate"], gift["at_edge"]) == ("tuned", True)


# --- Gradient norms -------------------------------------------------------------------


def with_norms(loss, accuracies, **fields):
    return [
        {**one, "gradient_norm_first": norm}
        for one, norm in zip(rows(loss, accuracies, **fields), NORMS[loss], strict=True)
    ]


@pytest.fixture
def normed():
    return [
        *with_norms("kl", [10.0, 11.0], **SGD),
        *with_norms(T_SQUARED, [50.0, 51.5], **SGD),
        *with_norms("gift", [53.0, 55.0], **SGD),
        *with_norms("kl", KL[:2]),
        *with_norms(T_SQUARED, GIFT[:2]),
    ]


def curve(norms):
    epochs = np.arange(1.0, len(norms) + 1)
    nothing = np.empty((0, 2))
    return reading.Curve(nothing, nothing, np.column_stack([epochs, norms]))


def test_norms_and_their_ratios_to_the_baseline(normed):
    keys = [reading.run_key(run) for run in normed[2:4]]
    curves = {keys[0]: curve([1.0, 0.5]), keys[1]: curve([1.0, 0.7])}
    losses = ["kl", T_SQUARED, "gift"]
    table = tables.gradient_table(compared(normed), losses, curves)
    found = texts(table)
    assert table.header[2:] == [
        "loss", "at initialisation", "over kl", "in the last epoch", "top-1",
    ]  # fmt: skip
    assert found[0][2:6] == ["kl", "0.0025", "1", ABSENT]
    assert found[1][2:6] == [T_SQUARED, "1", "400", "0.6"]
    # The ratio is that of the two runs of a seed: (150 + 300) / 2.
    assert found[2][2:5] == ["gift", "0.6", "225"]
    assert [line[0] for line in found] == ["sgd"] * 3 + ["adamw"] * 2


def test_a_group_of_two_kinds_of_rate_has_one_row_of_norms():
    both = compared(with_norms("kl", KL[:2]), "kl", choices(kl=DEFAULT_RATE))
    assert [g.rate for g in both] == ["default", "tuned"]
    assert len(tables.gradient_table(both, ["kl"], {}).rows) == 1


def test_runs_that_diverged_began_as_the_others():
    broken = row("gift", 0, None, status="diverged", gradient_norm_first=4.0)
    table = tables.gradient_table(compared([broken], None), ["gift"], {})
    assert texts(table) == [["gift", "4", ABSENT, ABSENT, "1 of 1 diverged"]]


def test_rows_without_norms_have_no_table():
    assert tables.gradient_table(compared(rows("kl", KL), None), ["kl"], {}) is None
    assert tables.t_squared_table(groups.group_rows(rows("kl", KL)), []) is None


def test_rates_of_both_kinds_are_asked_for_t_squared_once(normed):
    choices = [
        choice(r["loss"], r["learning_rate"], optimizer=r["optimizer"])
        for r in normed
        if r["seed"] == 0
    ]
    once = tables.t_squared_table(groups.group_rows(normed), choices)
    found = groups.compare(groups.group_rows(normed), "kl", choices)
    assert len(found) > len(groups.group_rows(normed))
    assert tables.t_squared_table(found, choices).cells == once.cells


def test_the_question_of_t_squared_has_an_answer_for_every_optimizer(normed):
    table = tables.t_squared_table(groups.group_rows(normed), [])
    found = texts(table)
    assert found[0][:6] == [
        "sgd", "0.01", "400", "10.50 ± 0.71", "50.75 ± 1.06", "+40.25",
    ]  # fmt: skip
    assert found[1][:3] == ["adamw", "0.001", "400"]
    difference = statistics.summarize(np.subtract(GIFT[:2], KL[:2]))
    assert found[1][5] == f"{difference.mean:+.2f}"
    # It is asked of KL and KL times T^2 whatever the baseline of the report.
    assert T_SQUARED in table.header
    assert "gift" not in table.header


@pytest.mark.parametrize("order", [1, -1])
def test_the_question_is_asked_of_the_shortest_name(normed, order):
    refined = [
        r | {"loss": r["loss"].replace("kl", "kl-refine=True", 1)}
        for r in normed
        if r["loss"].startswith("kl")
    ]
    both = [*refined, *normed][::order]
    table = tables.t_squared_table(groups.group_rows(both), [])
    assert T_SQUARED in table.header
