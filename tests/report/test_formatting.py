"""Tests of `gift_jax.report.formatting`: how settings and numbers are written."""

import pytest

from gift_jax.report import formatting, statistics
from tests.report.rows import KL, RATES, choices, compared, rows

ABSENT = "\N{EN DASH}"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ABSENT), ("", ABSENT), (0.001, "0.001"), (1e-5, "1e-05"), (10, "10")],
)
def test_values(value, text):
    assert formatting.value_text(value) == text


def test_of_fingerprints_there_are_six_digits():
    (group,) = compared(rows("kl", KL, init_from="89abcdef"))
    assert formatting.setting_text(group, "trained_on") == "012345"
    assert formatting.setting_text(group, "init_from") == "89abcd"
    assert formatting.setting_text(group, "teacher_fingerprint") == ABSENT
    assert formatting.heading("init_from") == "initial weights"


def test_learning_rates_say_of_which_kind_they_are():
    tuned = rows("kl", KL, learning_rate=RATES[0])
    both = compared(rows("kl", KL) + tuned, "kl", choices(kl=RATES[0]))
    write = formatting.setting_text
    assert [write(g, "learning_rate") for g in both] == [
        "0.001 (default)",
        "0.0001 (tuned, edge)",
    ]
    assert write(both[1], "learning_rate", tuned="tuned") == "tuned"


def test_summaries():
    assert formatting.summary_text(statistics.summarize([])) == ABSENT
    assert formatting.summary_text(statistics.summarize([2.5])) == "2.50"
    assert formatting.summary_text(statistics.summarize([1, 3])) == "2.00 ± 1.41"


def test_a_minus_is_a_true_one():
    assert formatting.signed_text(-0.5) == "\N{MINUS SIGN}0.50"
