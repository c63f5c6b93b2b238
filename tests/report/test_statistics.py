"""Tests of `gift_jax.report.statistics` and `comparison` against SciPy."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gift_jax.report import comparison, statistics

SETTINGS = {
    "dataset": "digits",
    "distill": "rded",
    "ipc": 10,
    "teacher": "conv3",
    "soft_labels": "store",
    "label_format": "float16",
    "views": 40,
    "augment": "rded",
    "student": "conv3",
    "epochs": 40,
    "batch_size": 50,
    "optimizer": "adamw",
    "learning_rate": 0.001,
    "weight_decay": 0.0001,
    "schedule": "step",
}
KL, GIFT = [50.0, 52.5, 51.0, 49.0], [53.0, 54.0, 54.5, 50.0]


def row(loss, seed, top1, **fields):
    name = "_".join(map(str, [loss, seed, *fields.values()]))
    outcome = {"run_id": name, "status": "finished", "top1_last": top1}
    return {**SETTINGS, "loss": loss, "seed": seed, **outcome, **fields}


def rows(loss, accuracies, **fields):
    return [row(loss, seed, top1, **fields) for seed, top1 in enumerate(accuracies)]


def compared(all_rows, loss="gift", baseline="kl"):
    groups = statistics.group_rows(all_rows)
    found = [c for c in comparison.compare(groups, baseline) if c.loss == loss]
    assert len(found) == 1
    return found[0]


several = st.lists(st.floats(0, 100), min_size=2, max_size=8).filter(
    lambda values: max(values) - min(values) > 1e-3
)


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
    found = compared(rows("kl", KL) + rows("gift", GIFT))
    expected = stats.ttest_rel(GIFT, KL)
    assert found.difference.n == 4
    assert found.difference.interval == pytest.approx(
        expected.confidence_interval(0.95)
    )
    assert found.verdict == 1
    assert expected.pvalue < 0.05


def test_the_verdict_is_that_of_the_test():
    gift = [53.0, 54.0, 54.5, 47.0]
    assert stats.ttest_rel(gift, KL).pvalue > 0.05
    assert compared(rows("kl", KL) + rows("gift", gift)).verdict == 0
    assert compared(rows("kl", GIFT) + rows("gift", KL)).verdict == -1


@given(st.floats(-30, 30))
def test_what_a_seed_adds_to_both_cancels(luck):
    shifted = [
        [value + luck * (seed == 2) for seed, value in enumerate(values)]
        for values in (KL, GIFT)
    ]
    plain = compared(rows("kl", KL) + rows("gift", GIFT))
    moved = compared(rows("kl", shifted[0]) + rows("gift", shifted[1]))
    assert moved.difference.interval == pytest.approx(plain.difference.interval)


def test_seeds_are_paired_by_number_and_not_by_order():
    shuffled = [*rows("gift", GIFT)[::-1], row("gift", 9, 99.0)]
    found = compared(rows("kl", KL) + shuffled)
    assert found.group.summary("top1_last").n == 5
    assert found.difference.n == 4
    assert found.difference.mean == pytest.approx(
        sum(g - k for g, k in zip(GIFT, KL, strict=True)) / 4
    )


def test_diverged_runs_are_counted_and_never_averaged():
    # The latest accuracy before the run diverged is in its row.
    broken = row("gift", 3, 10.0, status="diverged", diverged_epoch=7)
    found = compared(rows("kl", KL) + rows("gift", GIFT[:3]) + [broken])
    assert (len(found.group.finished), len(found.group.diverged)) == (3, 1)
    assert found.group.summary("top1_last").mean == pytest.approx(sum(GIFT[:3]) / 3)
    assert found.difference.n == 3


def test_survivors_of_a_divergence_are_not_called_better():
    worse, better = [50.0, 52.0, 51.0], [60.0, 62.1, 61.2]
    broken = row("gift", 3, None, status="diverged")
    found = compared(rows("kl", worse) + rows("gift", better) + [broken])
    assert found.difference.sign == 1
    assert found.verdict == 0
    broken = row("kl", 3, None, status="diverged")
    found = compared(rows("kl", worse) + rows("gift", better) + [broken])
    assert found.verdict == 0


@pytest.mark.parametrize("field", sorted(SETTINGS))
def test_runs_of_other_settings_are_neither_averaged_nor_compared(field):
    other = rows("kl", KL, **{field: 7})
    groups = statistics.group_rows(
        rows("gift", GIFT) + other + rows("gift", KL, **{field: 7})
    )
    assert [len(group.finished) for group in groups] == [4, 4, 4]
    alone, baseline, gift = comparison.compare(groups, "kl")
    assert alone.baseline is None
    assert alone.difference.n == 0
    assert baseline.is_baseline
    assert gift.baseline is baseline.group


def test_a_seed_counts_once():
    twice = [row("kl", 0, 50.0), {**row("kl", 0, 51.0), "run_id": "again"}]
    with pytest.raises(ValueError, match=r"'kl_0' and 'again'.*seed 0"):
        statistics.group_rows(twice)


def test_settings_that_follow_from_others_tell_nothing_apart():
    groups = statistics.group_rows(
        rows("kl", KL, ipc=1, batch_size=10)
        + rows("kl", KL, ipc=10, batch_size=50)
        + rows("kl", KL, optimizer="sgd", learning_rate=0.1, weight_decay=0.0)
    )
    comparisons = comparison.compare(groups, None)
    names = comparison.distinguishing(comparisons)
    assert names == ["ipc", "optimizer", "learning_rate"]
    keys = {tuple(c.setting(name) for name in names) for c in comparisons}
    assert len(keys) == len(groups)
