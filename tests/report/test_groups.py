"""Tests of `gift_jax.report.groups`: what is pooled, and what is compared with what."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gift_jax.pipeline import results
from gift_jax.report import groups, statistics
from tests.report.rows import (
    DEFAULT_RATE,
    GIFT,
    KL,
    RATES,
    SETTINGS,
    choice,
    choices,
    compared,
    row,
    rows,
)

TUNED_KL = [54.0, 55.0, 55.5, 51.5]
TUNED_GIFT = [54.5, 56.0, 57.0, 53.5]


def found(all_groups, loss="gift", rate=None):
    (one,) = [g for g in all_groups if (g.loss, g.rate) == (loss, rate)]
    return one


def test_the_verdict_is_that_of_the_test():
    assert stats.ttest_rel(GIFT, KL).pvalue < 0.05
    assert found(compared(rows("kl", KL) + rows("gift", GIFT))).verdict == 1
    gift = [53.0, 54.0, 54.5, 47.0]
    assert stats.ttest_rel(gift, KL).pvalue > 0.05
    assert found(compared(rows("kl", KL) + rows("gift", gift))).verdict == 0
    assert found(compared(rows("kl", GIFT) + rows("gift", KL))).verdict == -1


def test_diverged_runs_are_counted_and_never_averaged():
    # The latest accuracy before the run diverged is in its row.
    broken = row("gift", 3, 10.0, status="diverged", diverged_epoch=7)
    gift = found(compared(rows("kl", KL) + rows("gift", GIFT[:3]) + [broken]))
    assert (len(gift.finished), len(gift.diverged)) == (3, 1)
    assert gift.summary("top1_last").mean == pytest.approx(sum(GIFT[:3]) / 3)
    assert gift.difference.n == 3


def test_survivors_of_a_divergence_are_not_called_better():
    worse, better = [50.0, 52.0, 51.0], [60.0, 62.1, 61.2]
    for loss in ("gift", "kl"):
        broken = row(loss, 3, None, status="diverged")
        gift = found(compared(rows("kl", worse) + rows("gift", better) + [broken]))
        assert (gift.difference.sign, gift.verdict) == (1, 0)


# That of a loss is its own, as its name is.
@pytest.mark.parametrize("field", sorted(SETTINGS.keys() - {"loss_code"}))
def test_runs_of_other_settings_are_neither_averaged_nor_compared(field):
    all_groups = compared(
        rows("gift", GIFT)
        + rows("kl", KL, **{field: 7})
        + rows("gift", KL, **{field: 7})
    )
    assert [len(g.finished) for g in all_groups] == [4, 4, 4]
    alone, baseline, gift = all_groups
    assert (alone.baseline, alone.difference.n) == (None, 0)
    assert baseline.is_baseline
    assert gift.baseline.key == baseline.key


def test_a_seed_counts_once():
    twice = [row("kl", 0, 50.0), {**row("kl", 0, 51.0), "run_id": "again"}]
    with pytest.raises(ValueError, match=r"'kl_0' of work and 'again'.*seed 0"):
        groups.group_rows(twice)


def test_settings_that_follow_from_others_tell_nothing_apart():
    all_groups = compared(
        rows("kl", KL, ipc=1, batch_size=10, trained_on="a1")
        + rows("kl", KL, ipc=10, batch_size=50, trained_on="b2")
        + rows("kl", KL, optimizer="sgd", learning_rate=0.1, weight_decay=0.0),
        None,
    )
    # The third has an IPC of 10 too, and other images.
    names = groups.distinguishing(all_groups)
    assert names == ["ipc", "trained_on", "optimizer", "learning_rate"]
    assert len({g.of(names) for g in all_groups}) == len(all_groups)


# --- Other teachers and other distilled images ----------------------------------------


def three_work_directories(**differing):
    """Rows of one seed a directory, as three jobs with one changed field write them."""
    placed = []
    for number in range(3):
        content = {
            "workdir": f"work{number}",
            "trained_on": f"{number}" * 16,
            "teacher_fingerprint": f"aaa{number}" * 4,
            "distilled_fingerprint": f"bbb{number}" * 4,
            **{name: values[number] for name, values in differing.items()},
        }
        placed += [
            {**row("kl", number, KL[number]), **content},
            {**row("gift", number, GIFT[number]), **content},
        ]
    return placed


def test_other_teachers_and_distillation_seeds_are_three_groups():
    all_groups = compared(three_work_directories(data_seed=[0, 1, 2]))
    assert [len(g.finished) for g in all_groups] == [1] * 6
    assert {g.difference.n for g in all_groups if g.loss == "gift"} == {1}
    assert all(g.difference.interval is None for g in all_groups)
    assert groups.distinguishing(all_groups) == ["data_seed"]


@pytest.mark.parametrize(
    ("differing", "names"),
    [
        ({"data_seed": [0, 1, 2]}, ["data_seed"]),
        ({"teacher": ["conv3", "conv4", "resnet18"]}, ["teacher"]),
        ({"augment": [None, "flip=True", "pad_crop=4"]}, ["augment"]),
        (
            {"teacher": ["conv3", "conv3", "vgg11"], "data_seed": [0, 1, 1]},
            ["teacher", "data_seed"],
        ),
        ({}, ["teacher_fingerprint"]),
        ({"teacher_fingerprint": ["a"] * 3}, ["distilled_fingerprint"]),
        (
            {"teacher_fingerprint": ["a"] * 3, "distilled_fingerprint": ["b"] * 3},
            ["trained_on"],
        ),
    ],
    ids=str,
)
def test_groups_are_told_apart_by_words_or_else_by_fingerprints(differing, names):
    all_groups = compared(three_work_directories(**differing))
    assert len(all_groups) == 6
    assert groups.distinguishing(all_groups) == names


# --- Chosen learning rates ------------------------------------------------------------


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


def test_tuned_is_compared_with_tuned_and_default_with_default(both):
    default, tuned = found(both, "gift", "default"), found(both, "gift", "tuned")
    assert default.baseline.settings["learning_rate"] == DEFAULT_RATE
    assert default.difference == statistics.summarize(np.subtract(GIFT, KL))
    assert tuned.settings["learning_rate"] == RATES[0]
    assert tuned.baseline.settings["learning_rate"] == RATES[2]
    assert tuned.difference == statistics.summarize(np.subtract(TUNED_GIFT, TUNED_KL))
    names = groups.ALL_BUT_LOSS
    assert tuned.of(names) == found(both, "kl", "tuned").of(names)
    neither = found(both, "gift", None)
    assert neither.setting("learning_rate") == 0.5
    assert neither.baseline is None


def test_a_chosen_rate_that_is_the_default_is_under_both():
    all_groups = compared(
        [
            *rows("kl", KL),
            *rows("kl", TUNED_KL, learning_rate=RATES[2]),
            *rows("gift", GIFT),
        ],
        "kl",
        choices(kl=RATES[2], gift=DEFAULT_RATE),
    )
    default = found(all_groups, "gift", "default")
    tuned = found(all_groups, "gift", "tuned")
    assert default.key == tuned.key
    assert default.difference.mean == pytest.approx(np.mean(GIFT) - np.mean(KL))
    assert tuned.difference.mean == pytest.approx(np.mean(GIFT) - np.mean(TUNED_KL))
    assert (default.verdict, tuned.verdict) == (1, -1)


def test_untuned_losses_have_the_default_of_the_others():
    all_groups = compared(
        [
            *rows("kl", KL),
            *rows("mse", GIFT),
            *rows("mse", GIFT, learning_rate=RATES[2]),
            *rows("mse", GIFT, optimizer="sgd"),
        ],
        "kl",
        choices(kl=RATES[2]),
    )
    assert [g.rate for g in all_groups] == ["default", "default", None, None]
    assert all_groups[1].baseline.key == all_groups[0].key


def test_without_choices_a_learning_rate_is_a_setting():
    all_groups = compared(rows("kl", KL) + rows("gift", GIFT, learning_rate=0.5))
    assert [g.rate for g in all_groups] == [None, None]
    assert all_groups[1].baseline is None


@pytest.mark.parametrize("name", results.TUNING_SETTINGS)
def test_a_choice_is_for_its_own_settings(name):
    (group,) = groups.group_rows(rows("kl", KL))
    assert groups.is_for(choice("kl", 1.0), group.settings)
    other = {**choice("kl", 1.0), name: 7}
    assert not groups.is_for(other, group.settings)
    assert groups.is_for(other, group.settings, but=[name])


@given(st.sets(st.floats(1e-6, 1e2), min_size=1), st.data())
def test_a_rate_at_the_edge_has_none_on_one_side(rates, data):
    chosen = data.draw(st.sampled_from(sorted(rates)))
    tried = [{"learning_rate": rate, "top1": 1.0} for rate in rates]
    below = any(rate < chosen for rate in rates)
    above = any(rate > chosen for rate in rates)
    expected = not (below and above)
    assert groups.is_at_edge(choice("kl", chosen, tried=tried)) == expected
    assert not groups.is_at_edge(choice("kl", None, tried=tried))


def test_groups_stand_by_what_tells_them_apart_and_by_loss(both):
    ordered = groups.sort(both[::-1], ["kl", "gift"])
    assert [(g.setting("learning_rate"), g.loss) for g in ordered] == [
        ("default", "kl"),
        ("default", "gift"),
        ("tuned", "kl"),
        ("tuned", "gift"),
        (0.5, "gift"),
    ]
    ipcs = compared([r for ipc in (50, 1, 10) for r in rows("kl", KL, ipc=ipc)])
    assert [g.setting("ipc") for g in groups.sort(ipcs, ["kl"])] == [1, 10, 50]


def test_the_rows_of_the_tests_are_rows():
    assert results.check_row({**row("kl", 0, 1.0), "workdir": "work"}) is None
    assert results.check_choice(json.loads(json.dumps(choice("kl", 0.1)))) is None


def test_a_loss_of_ones_own_has_the_default_of_the_others():
    own = rows("mine", GIFT, loss_code="c" * 16)
    all_groups = compared([*rows("kl", KL), *own], "kl", choices(kl=RATES[2]))
    assert [g.rate for g in all_groups] == ["default", "default"]


def test_a_seed_that_diverged_in_the_baseline_is_in_no_difference():
    # The latest accuracy before the run diverged is in its row.
    broken = row("kl", 3, 10.0, status="diverged", diverged_epoch=7)
    gift = found(compared([*rows("kl", KL[:3]), broken, *rows("gift", GIFT)]))
    assert gift.difference.n == 3
    assert gift.difference.mean == pytest.approx(np.mean(np.subtract(GIFT, KL)[:3]))
