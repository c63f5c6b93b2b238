"""Tests of `gift_jax.report.changes`: which groups are paired, and what is said."""

import pytest

from gift_jax.report import changes, groups
from tests.report.rows import GIFT, KL, row, rows, texts


def grouped(*all_rows):
    return groups.group_rows([one for several in all_rows for one in several])


def table(new, old):
    return changes.changes_table(new, old, names=("new", "old"))


def test_differences_are_paired_over_seeds():
    new = grouped(rows("kl", [k + 1 + 0.1 * s for s, k in enumerate(KL)]))
    old = grouped(rows("kl", KL[:3]))
    (change,) = changes.pair_groups(new, old)
    assert change.difference.n == 3
    assert change.difference.mean == pytest.approx(1.1)
    assert change.verdict == 1
    (cells,) = table(new, old).cells
    assert [c.text for c in cells] == [
        "kl", "51.17 ± 1.26", "51.78 ± 1.45", "+1.10", "[+0.85, +1.35]", "3"
    ]  # fmt: skip
    assert cells[3].verdict == 1


def test_what_changed_as_a_whole_is_said_and_paired_in_spite_of():
    new = grouped(rows("kl", KL, epochs=80), rows("gift", GIFT, epochs=80))
    old = grouped(rows("kl", KL), rows("gift", GIFT))
    assert changes.changed_settings(new, old) == {"epochs": (40, 80)}
    made = table(new, old)
    assert [line[0] for line in texts(made)] == ["kl", "gift"]
    assert "epochs 40 before and 80 now" in made.caption
    assert "only" not in made.caption
    # One value on one side and two on the other is no change of the whole.
    both = grouped(rows("kl", KL), rows("kl", GIFT, epochs=80))
    assert not changes.changed_settings(both, old[:1])
    assert [c.new for c in changes.pair_groups(both, old[:1])] == both[:1]


def test_fingerprints_may_differ_where_words_leave_no_doubt():
    def two(*marks):
        return grouped(
            rows("kl", KL, ipc=1, trained_on=marks[0] * 16),
            rows("kl", GIFT, ipc=10, trained_on=marks[1] * 16),
        )

    new, old = two("a", "b"), two("c", "d")
    assert [c.old for c in changes.pair_groups(new, old)] == old
    # As may the code of a loss of one's own, beside a loss that has none.
    old, new = (
        grouped(rows("kl", KL), rows("mine:l", GIFT, loss_code=code)) for code in "ab"
    )
    assert [c.old for c in changes.pair_groups(new, old)] == old
    # What is equal in all comes first.
    alike = grouped(rows("kl", KL, trained_on="a"), rows("kl", KL, trained_on="b"))
    like_b = grouped(rows("kl", GIFT, trained_on="b"), rows("gift", KL, trained_on="z"))
    (change,) = changes.pair_groups(alike, like_b)
    assert (change.new, change.old) == (alike[1], like_b[0])
    # Two of one name fit none of another fingerprint.
    strange = grouped(rows("kl", GIFT, trained_on="c"), rows("gift", KL))
    assert not changes.pair_groups(alike, strange)


def test_what_is_on_one_side_only_is_counted():
    new = grouped(rows("kl", KL), rows("gift", GIFT))
    old = grouped(rows("kl", KL), rows("kl", KL, optimizer="sgd"))
    caption = table(new, old).caption
    assert "In new only: 1 (gift under adamw)." in caption
    assert "In old only: 1 (kl under sgd)." in caption


def test_diverged_runs_give_no_verdict():
    new = grouped(rows("kl", [90.0, 91.0]), [row("kl", 2, None, status="diverged")])
    old = grouped(rows("kl", [10.0, 10.5, 11.0]))
    (change,) = changes.pair_groups(new, old)
    assert (change.difference.n, change.difference.sign, change.verdict) == (2, 1, 0)


def test_nothing_in_common():
    made = table(grouped(rows("kl", KL), rows("dkd", KL)), grouped(rows("gift", KL)))
    assert not made.rows
    assert "In new only: 2 (kl under adamw, dkd under adamw)." in made.caption
