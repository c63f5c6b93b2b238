"""DD-Ranking's label-robust and augmentation-robust scores, of rows of results.

Li et al., https://arxiv.org/abs/2505.13300. Their package (ddranking 0.2.0,
`metrics/`) exponentiates differences of percentages, where the paper has shares: that
of alpha = 10 points is 9371 there, and 0.314 here.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from gift_jax.pipeline.results import BENCHMARK, OPTIMIZER
from gift_jax.report.formatting import (
    ABSENT,
    heading,
    setting_text,
    signed_text,
)
from gift_jax.report.groups import Group, distinguishing
from gift_jax.report.markup import Table
from gift_jax.report.statistics import Summary, summarize
from gift_jax.runtime.errors import InputError

# Weight of the first term on the leaderboard; the second has the rest.
_WEIGHT = 0.5
_RANDOM, _NO_AUGMENTATION = "random", "none"
# Settings in which images agree with those that they are compared with.
_RECIPE = (
    *(name for name in BENCHMARK if name not in ("distill", "trained_on")),
    *("teacher_fingerprint", "data_seed", *OPTIMIZER, "loss"),
)
_PLACE = ("dataset", "dataset_fingerprint", "ipc", "student")


def robust_score(weighted: float) -> float:
    """(e^x - e^-1) / (e - e^-1): from -1 to 1 onto 0 to 1.

    Args:
      weighted: Difference of accuracies as shares, not in percent.

    >>> robust_score(-1.0), round(robust_score(0.0), 4), robust_score(1.0)
    (0.0, 0.2689, 1.0)
    """
    least = math.exp(-1)
    return (math.exp(weighted) - least) / (math.e - least)


def label_robust_score(hlr: float, ior: float) -> float:
    """LRS: how far images help by themselves, and not by their labels.

    Args:
      hlr: Hard-label recovery, a share: accuracy of the whole real train split minus
        that of the images, both with hard labels.
      ior: Improvement over random, a share: accuracy of the images minus that of as
        many random real ones, by the same recipe.

    >>> round(label_robust_score(0.8789 - 0.7026, 0.7026 - 0.5226), 4)
    0.2697
    """
    return robust_score(_WEIGHT * ior - (1 - _WEIGHT) * hlr)


def augmentation_robust_score(ior: float, ior_without: float) -> float:
    """ARS: how far images help whatever the augmentation.

    Args:
      ior: Improvement over random with augmentation, a share.
      ior_without: The same without augmentation.
    """
    return robust_score(_WEIGHT * ior + (1 - _WEIGHT) * ior_without)


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """Scores of a group, each over the seeds that finished in all that it is made of.

    Attributes:
      group: The images under one recipe.
      hlr: Hard-label recovery in percentage points; n = 0 without runs for it.
      ior: Improvement over random, likewise.
      lrs: Label-robust score from 0 to 1.
      ior_without: Improvement over random in percentage points, without augmentation.
      ars: Augmentation-robust score from 0 to 1.
    """

    group: Group
    hlr: Summary
    ior: Summary
    lrs: Summary
    ior_without: Summary
    ars: Summary


def score(groups: Sequence[Group], real_accuracy: float | None = None) -> list[Scores]:
    """The scores of all groups that can have some.

    Args:
      groups: Compared groups, so that tuned learning rates stand beside tuned ones.
      real_accuracy: Accuracy of a student on the whole real train split with hard
        labels, in percent; by default that of the teacher, where it is the student's
        network.

    Raises:
      InputError: no group has random images beside it.
    """
    random = {g.of(_RECIPE): g for g in groups if g.settings["distill"] == _RANDOM}
    found = [
        _scores(g, random[g.of(_RECIPE)], groups, random, real_accuracy)
        for g in groups
        if g.settings["distill"] != _RANDOM and g.of(_RECIPE) in random
    ]
    if not found:
        raise InputError(
            "no images can be scored: run distilled.name='random+...' so that random "
            "images are trained on by the same recipe, and for the label-robust score "
            "relabel.source=hard,loss=ce as well (docs/report.md)"
        )
    return found


def _scores(
    group: Group,
    random: Group,
    groups: Sequence[Group],
    all_random: Mapping[tuple, Group],
    real_accuracy: float | None,
) -> Scores:
    ior = _differences(group, random)
    real = _real_accuracy(group, groups) if real_accuracy is None else real_accuracy
    hard, hlr = _hard(group, groups), {}
    if real is not None and hard is not None:
        hlr = {seed: real - top1 for seed, top1 in _accuracies(hard).items()}
    without = {}
    plain = _without_augmentation(group, groups)
    if plain is not None and plain.of(_RECIPE) in all_random:
        without = _differences(plain, all_random[plain.of(_RECIPE)])
    return Scores(
        group,
        hlr=summarize(hlr.values()),
        ior=summarize(ior.values()),
        lrs=summarize(
            label_robust_score(hlr[s] / 100, ior[s] / 100) for s in ior.keys() & hlr
        ),
        ior_without=summarize(without.values()),
        ars=summarize(
            augmentation_robust_score(ior[s] / 100, without[s] / 100)
            for s in ior.keys() & without
        ),
    )


def _accuracies(group: Group) -> dict[int, float]:
    """Accuracies in percent, by seed."""
    return {seed: row["top1_last"] for seed, row in group.finished.items()}


def _differences(group: Group, other: Group) -> dict[int, float]:
    ours, theirs = _accuracies(group), _accuracies(other)
    return {seed: ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs)}


def _hard(group: Group, groups: Sequence[Group]) -> Group | None:
    """The same images with hard labels; of several recipes the best one.

    Recipes with the same optimizer come first.
    """
    place = (*_PLACE, "distill", "distilled_fingerprint")
    hard = [
        g
        for g in groups
        if g.settings["soft_labels"] == "hard" and g.of(place) == group.of(place)
    ]
    if group in hard:
        return group
    same = [g for g in hard if g.of(OPTIMIZER) == group.of(OPTIMIZER)]
    finished = [g for g in same or hard if g.finished]
    return max(finished, key=lambda g: g.summary("top1_last").mean or 0.0, default=None)


def _real_accuracy(group: Group, groups: Sequence[Group]) -> float | None:
    """Accuracy of a teacher that is the student's network on this data, in percent."""
    place = ("dataset", "dataset_fingerprint", "student")
    for g in groups:
        is_same = g.settings["teacher"] == g.settings["student"]
        if is_same and g.of(place) == group.of(place):
            for row in g.rows:
                if row.get("teacher_top1") is not None:
                    return float(row["teacher_top1"])
    return None


def _without_augmentation(group: Group, groups: Sequence[Group]) -> Group | None:
    """The same images by the same recipe, without augmentation."""
    if group.settings["augment"] == _NO_AUGMENTATION:
        return None
    recipe = (name for name in _RECIPE if name != "augment")
    but = ("distill", "distilled_fingerprint", *recipe)
    plain = (g for g in groups if g.settings["augment"] == _NO_AUGMENTATION)
    return next((g for g in plain if g.of(but) == group.of(but)), None)


def scores_table(groups: Sequence[Group], real_accuracy: float | None = None) -> Table:
    """One row for every group that has scores; see `score`."""
    found = score(groups, real_accuracy)
    names = distinguishing([s.group for s in found])
    if "distill" not in names:
        names = ["distill", *names]
    return Table(
        "scores",
        "DD-Ranking's scores",
        "HLR: accuracy of the real train split minus that of the images, both with "
        "hard labels, in points; lower is better. IOR: improvement over as many random "
        "images by the same recipe, in points. LRS = f(IOR / 2 - HLR / 2) and ARS = "
        "f(IOR / 2 + IOR without augmentation / 2), of shares, with f(x) = (e^x - 1/e) "
        "/ (e - 1/e). Means over n seeds, paired, with 95% t-intervals; the accuracy "
        "of the real train split is one number. "
        f"{_of_what(found, real_accuracy)}",
        [*map(heading, names), "loss"],
        ["n", "HLR", "IOR", "LRS", "interval", "IOR without", "ARS", "interval"],
        [
            [
                *[setting_text(s.group, name) for name in names],
                s.group.loss,
                str(s.ior.n),
                _points(s.hlr),
                _points(s.ior),
                *_shares(s.lrs),
                _points(s.ior_without),
                *_shares(s.ars),
            ]
            for s in found
        ],
    )


def _of_what(found: Sequence[Scores], real_accuracy: float | None) -> str:
    """What the label-robust score is about, and why there is none."""
    said = "that of the teacher" if real_accuracy is None else f"{real_accuracy:g}"
    sentences = [f"That accuracy is {said}."]
    if all(s.hlr.n == 0 for s in found):
        sentences = [
            "No LRS: it needs runs with relabel.source=hard, and the accuracy of the "
            "real train split (--real-accuracy, or a teacher of the student's network)."
        ]
    if all(s.ars.n == 0 for s in found):
        sentences.append("No ARS: it needs the same runs without augmentation.")
    return " ".join(sentences)


def _points(summary: Summary) -> str:
    return ABSENT if summary.mean is None else signed_text(summary.mean)


def _shares(summary: Summary) -> list[str]:
    if summary.mean is None:
        return [ABSENT, ABSENT]
    interval = ABSENT
    if summary.interval:
        interval = "[{:.3f}, {:.3f}]".format(*summary.interval)
    return [f"{summary.mean:.3f}", interval]
