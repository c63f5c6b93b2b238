"""Tests of `gift_jax.report.statistics` against SciPy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gift_jax.report import statistics
from tests.report.rows import GIFT, KL, row, rows

several = st.lists(st.floats(0, 100), min_size=2, max_size=8).filter(
    lambda values: max(values) - min(values) > 1e-3
)


def by_seed(all_rows):
    return {one["seed"]: one for one in all_rows}


@settings(deadline=None)
@given(several)
def test_mean_standard_deviation_and_interval_are_those_of_scipy(values):
    summary = statistics.summarize(values)
    assert summary.n == len(values)
    assert summary.mean == pytest.approx(stats.tmean(values))
    assert summary.sd == pytest.approx(stats.tstd(values))
    expected = stats.t.interval(
        0.95, len(values) - 1, loc=stats.tmean(values), scale=stats.sem(values)
    )
    assert summary.interval == pytest.approx(expected)


def test_two_values_in_closed_form():
    summary = statistics.summarize([1.0, 3.0])
    assert summary.sd == pytest.approx(math.sqrt(2))
    # With one degree of freedom t is Cauchy: its quantile is tan(pi (p - 1/2)).
    assert summary.half_width == pytest.approx(math.tan(math.pi * 0.475))


def test_one_value_has_no_spread_and_none_has_no_mean():
    assert statistics.summarize([3.0]) == statistics.Summary(1, 3.0, None, None)
    assert statistics.summarize([]) == statistics.Summary(0, None, None, None)
    assert statistics.summarize([3.0]).interval is None
    assert statistics.summarize([3.0]).sign == 0


def test_equal_values_have_no_interval():
    assert statistics.summarize([2.0, 2.0, 2.0]).interval is None
    # As differences of accuracies of 360 images come out.
    almost = [100 * 341 / 360 - 100 * 337 / 360, 100 * 307 / 360 - 100 * 303 / 360]
    assert almost[0] != almost[1]
    assert statistics.summarize(almost).interval is None


@pytest.mark.parametrize(
    ("values", "sign"), [([1, 1.1, 1.2], 1), ([-1, -1.1, -1.2], -1), ([-1, 1, 2], 0)]
)
def test_sign_of_an_interval(values, sign):
    assert statistics.summarize(values).sign == sign


def test_the_difference_is_that_of_a_paired_t_test():
    difference = statistics.pair(by_seed(rows("gift", GIFT)), by_seed(rows("kl", KL)))
    expected = stats.ttest_rel(GIFT, KL)
    assert difference.n == 4
    assert difference.interval == pytest.approx(expected.confidence_interval(0.95))


@given(st.floats(-30, 30))
def test_what_a_seed_adds_to_both_cancels(luck):
    plain, moved = (
        statistics.pair(
            *(
                by_seed(rows("", [v + add * (s == 2) for s, v in enumerate(values)]))
                for values in (GIFT, KL)
            )
        )
        for add in (0, luck)
    )
    assert moved.interval == pytest.approx(plain.interval)


def test_seeds_are_paired_by_number_and_not_by_order():
    shuffled = [*rows("gift", GIFT)[::-1], row("gift", 9, 99.0)]
    difference = statistics.pair(by_seed(shuffled), by_seed(rows("kl", KL)))
    assert difference.n == 4
    assert difference.mean == pytest.approx(
        sum(g - k for g, k in zip(GIFT, KL, strict=True)) / 4
    )


def test_rank_correlations_by_hand():
    found = statistics.rank_correlation([(1, 10), (2, 30), (3, 20), (4, 40), (5, 50)])
    assert found.n == 5
    assert found.value == pytest.approx(1 - 6 * 2 / (5 * 24))
    # Bonett and Wright: 0.9, variance (1 + 0.405) / 2.
    half = 1.959964 * math.sqrt(1.405 / 2)
    expected = [math.tanh(math.atanh(0.9) + sign * half) for sign in (-1, 1)]
    assert found.interval == pytest.approx(expected, abs=1e-5)


def test_rank_correlations_without_an_interval_or_a_value():
    assert (
        statistics.rank_correlation([(1, 1), (2, 2), (3, 3), (4, 9)]).interval is None
    )
    assert statistics.rank_correlation([(1, 2), (2, 1), (3, 3)]).interval is None
    assert statistics.rank_correlation([(1, 2), (2, 2), (3, 2)]).value is None
    assert statistics.rank_correlation([]).value is None


def test_intervals_of_rank_correlations_cover_what_they_say():
    """Normal pairs of correlation 0.6, whose rank correlation is known."""
    rng = np.random.default_rng(0)
    true = 6 / math.pi * math.asin(0.6 / 2)
    hits = 0
    for _ in range(400):
        x = rng.normal(size=40)
        y = 0.6 * x + 0.8 * rng.normal(size=40)
        found = statistics.rank_correlation(list(zip(x, y, strict=True)))
        hits += found.interval[0] < true < found.interval[1]
    assert 0.92 < hits / 400 < 0.98


def test_the_reverse_order_has_no_interval_either():
    found = statistics.rank_correlation([(1, 9), (2, 3), (3, 2), (4, 1)])
    assert found.value == pytest.approx(-1) and found.interval is None
