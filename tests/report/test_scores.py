"""DD-Ranking's scores against values worked by hand, and what they are made from."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gift_jax.report import scores
from gift_jax.report.formatting import ABSENT
from gift_jax.runtime.errors import InputError
from tests.report.rows import choice, compared, rows, texts

# Accuracies of three seeds.
SYN, RANDOM = [60.0, 62.0, 61.0], [50.0, 51.0, 49.0]
HARD, HARD_RANDOM = [40.0, 42.0, 41.0], [38.0, 39.0, 37.0]
PLAIN, PLAIN_RANDOM = [55.0, 55.0, 58.0], [45.0, 47.0, 46.0]
TAUGHT = {"teacher_top1": 82.0}


def hard(accuracies, **fields):
    of_hard = {
        "soft_labels": "hard", "teacher": None, "label_format": None,
        "trained_on": "c" * 16,
    }  # fmt: skip
    return rows("ce", accuracies, **of_hard, **fields)


def of_random(accuracies, loss="gift", **fields):
    return rows(loss, accuracies, distill="random", trained_on="b" * 16, **fields)


ALL = [
    *rows("gift", SYN, **TAUGHT),
    *of_random(RANDOM),
    *hard(HARD),
    *hard(HARD_RANDOM, distill="random"),
    *rows("gift", PLAIN, augment="none", trained_on="d" * 16),
    *of_random(PLAIN_RANDOM, augment="none"),
]


def f(x):
    return (math.exp(x) - 1 / math.e) / (math.e - 1 / math.e)


def packages(percent):
    """`(np.exp(alpha) - np.exp(-1)) / (np.exp(1) - np.exp(-1))`, of percentages."""
    return f(percent)


def test_the_ends_and_the_middle():
    assert scores.robust_score(-1.0) == 0.0
    assert scores.robust_score(1.0) == 1.0
    assert scores.robust_score(0.0) == pytest.approx((1 - 1 / math.e) / 2.3504024)


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_scores_are_shares_and_rise_with_what_they_reward(ior, hlr):
    score = scores.label_robust_score(hlr, ior)
    assert 0 <= score <= 1
    assert scores.label_robust_score(hlr, ior + 0.1) > score
    assert scores.label_robust_score(hlr + 0.1, ior) < score
    both = scores.augmentation_robust_score(ior, hlr)
    assert both == pytest.approx(scores.augmentation_robust_score(hlr, ior))


def test_the_worked_example_by_the_paper_and_by_the_package():
    hlr, ior = 87.89 - 70.26, 70.26 - 52.26
    by_paper = scores.label_robust_score(hlr / 100, ior / 100)
    assert round(by_paper, 3) == 0.270
    percent = 0.5 * ior - 0.5 * hlr
    assert round(packages(percent), 3) == 0.355
    # The table of docs/report.md.
    for points, ours, theirs in ((10, 0.314, 9371.2), (-20, 0.192, -0.157)):
        assert scores.robust_score(points / 100) == pytest.approx(ours, abs=5e-4)
        assert packages(points) == pytest.approx(theirs, abs=5e-2)


def scores_of(found, **options):
    return {s.group.loss: s for s in scores.score(found, **options)}


def test_scores_of_rows_are_those_worked_by_hand():
    found = scores.score(compared(ALL))
    # Of every recipe that random images were trained by, too.
    assert [(s.group.loss, s.group.settings["augment"]) for s in found] == [
        ("gift", "flip=True"),
        ("ce", "flip=True"),
        ("gift", "none"),
    ]
    gift, ce, plain = found
    assert gift.ior.mean == pytest.approx((10 + 11 + 12) / 3)
    assert gift.hlr.mean == pytest.approx(82 - 41)
    lrs = [f((i / 100 - h / 100) / 2) for i, h in ((10, 42), (11, 40), (12, 41))]
    assert gift.lrs.mean == pytest.approx(sum(lrs) / 3)
    low, high = gift.lrs.interval
    mean = sum(lrs) / 3
    sd = (sum((x - mean) ** 2 for x in lrs) / 2) ** 0.5
    # The 97.5% quantile of Student's t with two degrees of freedom is 4.3027.
    assert high - low == pytest.approx(2 * 4.302653 * sd / 3**0.5)
    ars = [f((a / 100 + b / 100) / 2) for a, b in ((10, 10), (11, 8), (12, 12))]
    assert gift.ars.mean == pytest.approx(sum(ars) / 3)
    # With hard labels the images are compared with random ones with hard labels.
    assert ce.ior.mean == pytest.approx((2 + 3 + 4) / 3)
    assert ce.hlr.mean == gift.hlr.mean
    assert plain.ars.n == 0


def test_an_accuracy_of_the_real_images_that_is_given_wins():
    (gift, *_) = scores.score(compared(ALL), real_accuracy=90.0)
    assert gift.hlr.mean == pytest.approx(90 - 41)


def test_hard_labels_are_those_of_the_same_images():
    mine = {"distilled_fingerprint": "a1"}
    other = hard([90.0, 91.0, 92.0], distilled_fingerprint="b2", data_seed=1)
    for one in other:
        one["trained_on"] = "e" * 16
    found = [
        *rows("gift", SYN, **TAUGHT, **mine),
        *of_random(RANDOM),
        *hard(HARD, **mine),
    ]
    alone, beside = (scores_of(compared(r))["gift"] for r in (found, [*found, *other]))
    assert alone.hlr.mean == beside.hlr.mean


def test_without_augmentation_means_the_same_images():
    plain = {"augment": "none"}
    taught = {**TAUGHT, "distilled_fingerprint": "a1"}
    other = {**TAUGHT, "distilled_fingerprint": "b2"}
    found = [
        *rows("gift", [90.0, 91.0, 92.0], **other, **plain, trained_on="d" * 16),
        *rows("gift", SYN, **taught),
        *of_random(RANDOM),
        *of_random([30.0, 30.0, 30.0], **plain),
    ]
    scored = {s.group.of(["augment"]): s for s in scores.score(compared(found))}
    assert scored["flip=True",].ars.n == 0
    own = rows("gift", [40.0, 41.0, 42.0], **taught, **plain, trained_on="f" * 16)
    scored = {
        s.group.of(["augment", "distilled_fingerprint"]): s
        for s in scores.score(compared([*found, *own]))
    }
    assert scored["flip=True", "a1"].ior_without.mean == pytest.approx(11)


def test_a_teacher_of_another_network_is_no_student():
    other = [{**row, "teacher": row["teacher"] and "resnet20"} for row in ALL]
    (gift, *_) = scores.score(compared(other))
    assert gift.hlr.n == gift.lrs.n == 0
    table = scores.scores_table(compared(other))
    assert "No LRS: it needs runs with relabel.source=hard" in table.caption


def test_the_hard_labels_of_the_same_optimizer_come_first_then_the_best():
    sgd = hard([70.0, 70.5, 71.0], optimizer="sgd", learning_rate=0.01)
    assert scores_of(compared([*ALL, *sgd]))["gift"].hlr.mean == pytest.approx(82 - 41)
    without = [row for row in ALL if row["loss"] != "ce"]
    lion = hard([30.0, 30.5, 31.0], optimizer="lion")
    found = scores_of(compared([*without, *sgd, *lion]))
    assert found["gift"].hlr.mean == pytest.approx(82 - 70.5)


def test_tuned_runs_are_compared_with_tuned_ones():
    def at(rate, syn, random):
        return [
            *rows("gift", syn, learning_rate=rate),
            *of_random(random, learning_rate=2 * rate),
        ]

    default = [*rows("gift", SYN), *of_random(RANDOM)]
    tuned = at(0.01, [70.0, 71.0, 72.0], [55.0, 55.0, 55.0])
    chosen = [
        choice("gift", 0.01),
        choice("gift", 0.02, distill="random", trained_on="b" * 16),
    ]
    found = scores.score(compared(default + tuned, None, chosen))
    by_rate = {s.group.rate: s.ior.mean for s in found}
    assert by_rate == {"default": pytest.approx(11), "tuned": pytest.approx(16)}


def test_the_table():
    table = scores.scores_table(compared(ALL))
    assert table.header == [
        "distilled", "teacher", "augmentation", "loss", "n", "HLR", "IOR",
        "LRS", "interval", "IOR without", "ARS", "interval",
    ]  # fmt: skip
    found = {row[3]: row for row in texts(table) if row[2] != "none"}
    # By seed: HLR 42, 40, 41; IOR 10, 11, 12; without augmentation 10, 8, 12.
    assert found["gift"] == [
        "rded", "conv3", "flip=True", "gift", "3", "+41.00", "+11.00",
        "0.210", "[0.202, 0.218]", "+10.00", "0.316", "[0.300, 0.332]",
    ]  # fmt: skip
    # Of hard labels there is no run without augmentation; IOR 2, 3, 4.
    assert found["ce"] == [
        "rded", ABSENT, "flip=True", "ce", "3", "+41.00", "+3.00",
        "0.195", "[0.188, 0.203]", ABSENT, ABSENT, ABSENT,
    ]  # fmt: skip
    assert "That accuracy is that of the teacher." in table.caption


def test_without_random_images_there_is_no_score():
    with pytest.raises(InputError, match=r"distilled\.name='random\+\.\.\.'"):
        scores.score(compared(rows("gift", SYN)))


def test_the_teacher_is_that_of_the_same_real_images():
    other = rows(
        "gift",
        SYN,
        teacher_top1=99.0,
        dataset_fingerprint="e" * 16,
        trained_on="f" * 16,
    )
    assert scores_of(compared([*other, *ALL]))["gift"].hlr.mean == pytest.approx(
        82 - 41
    )


def test_hard_labels_are_scored_by_their_own_accuracy():
    better = hard([70.0, 70.5, 71.0], augment="none")
    ce = scores_of(compared([*ALL, *better]))["ce"]
    assert ce.group.settings["augment"] == "flip=True"
    assert ce.hlr.mean == pytest.approx(82 - 41)
