"""Tests of tuned learning rates in the report: what is compared with what."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_report_statistics import GIFT, KL, SETTINGS, rows

from gift_jax.report import comparison, statistics, style, sweeps, tables, tuning

DEFAULT = SETTINGS["learning_rate"]
RATES = [DEFAULT / 10, DEFAULT, 10 * DEFAULT, 100 * DEFAULT]
TUNED_KL = [54.0, 55.0, 55.5, 51.5]
TUNED_GIFT = [54.5, 56.0, 57.0, 53.5]


def line(loss, chosen, **fields):
    """A line of the file of tuned learning rates."""
    tried = [{"learning_rate": rate, "top1": 50.0} for rate in RATES[:-1]]
    tried.append({"learning_rate": RATES[-1], "top1": None})
    settings = {k: v for k, v in SETTINGS.items() if k != "learning_rate"}
    del settings["augment"]  # is not recorded
    choice = {"default_learning_rate": DEFAULT, "learning_rate": chosen}
    about = {"validation_images": 500, "seeds": [0, 1], "tried": tried[::-1]}
    return json.dumps({**settings, "loss": loss, **choice, **about, **fields})


def tunings(**chosen):
    return [tuning.parse_tuning(line(loss, rate)) for loss, rate in chosen.items()]


def compared(all_rows, choices):
    return comparison.compare(statistics.group_rows(all_rows), "kl", choices)


def found(comparisons, loss, protocol):
    (one,) = [c for c in comparisons if (c.loss, c.protocol) == (loss, protocol)]
    return one


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
    return compared(all_rows, tunings(kl=RATES[2], gift=RATES[0]))


def test_tuned_is_compared_with_tuned_and_default_with_default(both):
    default, tuned = found(both, "gift", "default"), found(both, "gift", "tuned")
    assert default.baseline.settings["learning_rate"] == DEFAULT
    assert default.difference == statistics.summarize(np.subtract(GIFT, KL))
    assert tuned.group.settings["learning_rate"] == RATES[0]
    assert tuned.baseline.settings["learning_rate"] == RATES[2]
    assert tuned.difference == statistics.summarize(np.subtract(TUNED_GIFT, TUNED_KL))
    assert tuned.condition == found(both, "kl", "tuned").condition
    neither = found(both, "gift", None)
    assert neither.setting("learning_rate") == 0.5
    assert neither.baseline is None


def test_a_chosen_rate_that_is_the_default_is_under_both():
    comparisons = compared(
        [
            *rows("kl", KL),
            *rows("kl", TUNED_KL, learning_rate=RATES[2]),
            *rows("gift", GIFT),
        ],
        tunings(kl=RATES[2], gift=DEFAULT),
    )
    default = found(comparisons, "gift", "default")
    tuned = found(comparisons, "gift", "tuned")
    assert default.group is tuned.group
    assert default.difference.mean == pytest.approx(np.mean(GIFT) - np.mean(KL))
    assert tuned.difference.mean == pytest.approx(np.mean(GIFT) - np.mean(TUNED_KL))
    assert (default.verdict, tuned.verdict) == (1, -1)


def test_untuned_losses_have_the_default_of_the_others():
    comparisons = compared(
        [
            *rows("kl", KL),
            *rows("mse", GIFT),
            *rows("mse", GIFT, learning_rate=RATES[2]),
            *rows("mse", GIFT, optimizer="sgd"),
        ],
        tunings(kl=RATES[2]),
    )
    assert [c.protocol for c in comparisons] == ["default", "default", None, None]
    assert comparisons[1].baseline is comparisons[0].group


def test_without_choices_a_learning_rate_is_a_setting():
    comparisons = compared(rows("kl", KL) + rows("gift", GIFT, learning_rate=0.5), [])
    assert [c.protocol for c in comparisons] == [None, None]
    assert comparisons[1].baseline is None


@pytest.mark.parametrize("name", [n for n in SETTINGS if n != "learning_rate"])
def test_a_choice_is_for_its_own_settings(name):
    (choice,) = tunings(kl=RATES[2])
    group = statistics.group_rows(rows("kl", KL, **{name: 7}))[0]
    expected = name == "augment"  # which is not recorded
    assert choice.is_for(group.settings) == expected


def test_the_latest_choice_counts():
    choices = tunings(kl=RATES[0]) + tunings(gift=RATES[1]) + tunings(kl=RATES[2])
    latest = {c.settings["loss"]: c.learning_rate for c in tuning.latest(choices)}
    assert latest == {"kl": RATES[2], "gift": RATES[1]}


@given(st.sets(st.floats(1e-6, 1e2), min_size=1), st.data())
def test_a_rate_at_the_edge_has_none_on_one_side(rates, data):
    chosen = data.draw(st.sampled_from(sorted(rates)))
    tried = [{"learning_rate": rate, "top1": 1.0} for rate in rates]
    choice = tuning.parse_tuning(line("kl", chosen, tried=tried))
    below = any(rate < chosen for rate in rates)
    above = any(rate > chosen for rate in rates)
    assert choice.at_edge == (not (below and above))
    assert [rate for rate, _ in choice.tried] == sorted(rates)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"loss": "kl', "not JSON"),
        ("[]", "a JSON list"),
        (line(None, 0.1), "loss is None"),
        (line("kl", "fast"), "learning_rate is 'fast'"),
        (line("kl", 0.1, default_learning_rate=None), "default_learning_rate is None"),
        (line("kl", 0.1, tried=[]), r"tried is \[\]"),
        (line("kl", 0.1, tried=[{"learning_rate": 0.1}]), "tried is"),
    ],
)
def test_lines_that_make_no_sense_are_refused_with_the_reason(text, reason):
    with pytest.raises(ValueError, match=reason):
        tuning.parse_tuning(text)


def test_the_table_has_default_beside_tuned(both):
    table = tables.tuning_table(both, ["kl", "gift"])
    kl, gift = [[cell.text for cell in line] for line in table.rows]
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
    assert [cell.verdict for cell in table.rows[1]][2] == 1


def test_the_table_says_what_is_missing():
    comparisons = compared(
        rows("kl", KL) + rows("gift", GIFT) + rows("mse", GIFT) + rows("ce", GIFT),
        [*tunings(kl=RATES[2], gift=DEFAULT), tuning.parse_tuning(line("ce", None))],
    )
    table = tables.tuning_table(comparisons, ["kl", "gift", "mse", "ce"])
    texts = [[cell.text for cell in line] for line in table.rows]
    assert [line[4] for line in texts] == [
        "not run", "52.88 ± 2.02", "not tuned", "all diverged",
    ]  # fmt: skip
    assert texts[1][5] == "same rate"
    assert tables.tuning_table(compared(rows("kl", KL), []), ["kl"]) is None


def test_other_tables_name_protocols_and_rates(both):
    losses = ["kl", "gift"]
    accuracy = tables.accuracy_table(both, losses)
    texts = [[cell.text for cell in line] for line in accuracy.rows]
    assert [line[0] for line in texts] == ["0.001 (default)", "tuned", "0.5"]
    assert texts[1][1:] == ["54.00 ± 1.78", "55.25 ± 1.55"]
    table = tables.comparison_table(both, losses)
    assert [line[0].text for line in table.rows] == [
        "0.001 (default)",
        "0.001 (default)",
        "0.01 (tuned)",
        "0.0001 (tuned, edge)",
        "0.5",
    ]
    header, values = tables.summary_columns(both)
    gift = dict(zip(header, values[3], strict=True))
    assert (gift["protocol"], gift["at_edge"]) == ("tuned", True)


def test_the_plot_rings_what_was_chosen_and_crosses_what_diverged():
    choices = tunings(kl=RATES[2], gift=DEFAULT)
    figure = sweeps.held_out_learning_rates(choices, ["kl", "gift"])
    (axes,) = figure.axes
    shifts = dict(style.side_by_side(["kl", "gift"]))
    rings = [r.get_xdata() for r in axes.lines if r.get_markerfacecolor() == "none"]
    expected = [[RATES[2] * shifts["kl"]], [DEFAULT * shifts["gift"]]]
    np.testing.assert_allclose(rings, expected)
    crosses = [cross.get_xdata() for cross in axes.lines if cross.get_marker() == "x"]
    np.testing.assert_allclose(
        crosses, [[RATES[-1] * shift] for shift in shifts.values()]
    )
    default = [one.get_xdata() for one in axes.lines if one.get_linestyle() == ":"]
    np.testing.assert_allclose(default, [[DEFAULT, DEFAULT]])
