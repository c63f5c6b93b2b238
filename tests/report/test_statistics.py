"""Tests of `gift_jax.report.statistics` against SciPy."""

import math

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
