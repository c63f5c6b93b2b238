"""Regret: how far a loss stays behind the best one, over all that it was run under."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from gift_jax.pipeline.results import BENCHMARK
from gift_jax.report import style
from gift_jax.report.formatting import (
    ABSENT,
    setting_text,
    signed_interval_text,
    signed_text,
)
from gift_jax.report.groups import TUNED, Group, distinguishing
from gift_jax.report.markup import Cell, Table
from gift_jax.report.statistics import Summary, pair, summarize

# Points behind the best that still count as equal to it.
CLOSE = 0.5
_TICKS = (0, 0.5, 1, 2, 5, 10, 20, 50)
_CONDITION = (*BENCHMARK, "optimizer", "weight_decay", "schedule")


class Behind(NamedTuple):
    """A loss in a condition, and the loss that is best there.

    Attributes:
      group: Runs of the loss.
      best: Runs of the best loss; the same group where it is the loss itself.
    """

    group: Group
    best: Group

    @property
    def points(self) -> float:
        """Mean accuracy of the best minus that of the loss."""
        return _mean(self.best) - _mean(self.group)

    @property
    def paired(self) -> Summary:
        """The same, paired over the seeds that finished in both."""
        return pair(self.best.finished, self.group.finished)


@dataclasses.dataclass(frozen=True)
class Regrets:
    """Regrets of a loss, at its default or its tuned learning rates.

    Attributes:
      loss: The loss.
      is_tuned: Whether its rates are tuned; otherwise they are defaults, or one that
        was given.
      behind: The loss and the best loss, by condition.
      diverged: Conditions in which a run of it diverged.
    """

    loss: str
    is_tuned: bool
    behind: Mapping[tuple, Behind]
    diverged: int

    @property
    def label(self) -> str:
        """Loss, and whether its rates are tuned."""
        return f"{self.loss}, tuned" if self.is_tuned else self.loss

    @property
    def points(self) -> dict[tuple, float]:
        """How far it is behind in points, by condition."""
        return {condition: one.points for condition, one in self.behind.items()}

    @property
    def worst(self) -> tuple:
        """The condition in which it is furthest behind."""
        points = self.points
        return max(points, key=lambda condition: points[condition])

    @property
    def largest(self) -> float:
        """Regret in the worst condition."""
        return self.points[self.worst]

    @property
    def mean(self) -> float:
        """Mean regret over the conditions."""
        return float(np.mean(list(self.points.values())))

    @property
    def mean_over_seeds(self) -> Summary:
        """Mean regret over conditions, of every seed that finished in all of them."""
        pairs = [
            (one.best.finished, one.group.finished) for one in self.behind.values()
        ]
        seeds = set.intersection(*(set(a) & set(b) for a, b in pairs))
        return summarize(
            np.mean([a[seed]["top1_last"] - b[seed]["top1_last"] for a, b in pairs])
            for seed in sorted(seeds)
        )

    @property
    def close(self) -> int:
        """In how many conditions it is at most `CLOSE` behind."""
        return sum(points <= CLOSE for points in self.points.values())


def _mean(group: Group) -> float:
    mean = group.summary("top1_last").mean
    assert mean is not None
    return mean


def _condition(group: Group) -> tuple:
    """All but the loss, and but a default or tuned rate, as a loss has its own."""
    rate = None if group.rate else group.settings["learning_rate"]
    return (*group.of(_CONDITION), rate)


def regrets(groups: Sequence[Group]) -> list[Regrets]:
    """Regrets of every loss; none for fewer than two conditions.

    Losses that diverged in fewest conditions come first, of these the smallest worst
    case. The best of a condition is that of all losses, at default and tuned rates;
    where there is one loss only, nothing is compared. A loss of which a run diverged is
    not the best where another one finished all of its runs: the seeds that are left are
    a selection. Losses that never finished are left out.
    """
    by_condition: dict[tuple, list[Group]] = collections.defaultdict(list)
    for g in groups:
        by_condition[_condition(g)].append(g)
    found: dict[tuple, dict[tuple, Behind]] = collections.defaultdict(dict)
    diverged: collections.Counter[tuple] = collections.Counter()
    for condition, members in by_condition.items():
        finished = [g for g in members if g.finished]
        if len({g.loss for g in members}) == 1 or not finished:
            continue
        whole = [g for g in finished if not g.diverged]
        best = max(whole or finished, key=_mean)
        for g in members:
            is_tuned = g.rate == TUNED
            diverged[g.loss, is_tuned] += bool(g.diverged)
            if g.finished:
                found[g.loss, is_tuned][condition] = Behind(g, best)
    if len({condition for behind in found.values() for condition in behind}) < 2:
        return []
    all_regrets = [
        Regrets(loss, is_tuned, behind, diverged[loss, is_tuned])
        for (loss, is_tuned), behind in found.items()
    ]
    return sorted(all_regrets, key=lambda one: (one.diverged, one.largest))


def _names(groups: Sequence[Group]) -> dict[tuple, str]:
    """Names of conditions, made of all settings that tell them apart."""
    names = distinguishing(groups)
    found = {}
    for g in groups:
        own = [n for n in names if not (g.rate and n == "learning_rate")]
        found[_condition(g)] = ", ".join(setting_text(g, name) for name in own)
    return found


def table(groups: Sequence[Group]) -> Table | None:
    """One row per loss; None where losses are compared in fewer than two conditions."""
    found = regrets(groups)
    if not found:
        return None
    names = _names(groups)
    with_diverged = any(one.diverged for one in found)
    baselines = sorted({g.baseline.loss for g in groups if g.baseline})
    return Table(
        "regret",
        "Regret",
        "How many points of top-1 accuracy after the last epoch a loss stays behind "
        "the best loss of a condition, both means over seeds; the best is that of all, "
        "at default and at tuned rates. A condition is all that a loss is run under, "
        "such as an optimizer and a dataset. The best of several means is better than "
        "it would be again: a loss that is as good as the best has a regret of about "
        "the spread of the seeds. Intervals are 95% t-intervals, paired over seeds, to "
        "the loss that was found to be best. A loss that lost a run is best only where "
        "all did; diverged counts the conditions in which that happened to it."
        + "".join(_on_baseline(name) for name in baselines),
        ["loss", "worst condition"],
        [
            "largest", "interval", "mean", "its interval", f"within {CLOSE:g}",
            "conditions", *(f"least over {name}" for name in baselines),
            *(f"below {name}" for name in baselines), *["diverged"] * with_diverged,
        ],
        [
            [
                one.label,
                names[one.worst],
                f"{one.largest:.2f}",
                _interval(one.behind[one.worst].paired),
                f"{one.mean:.2f}",
                _interval(one.mean_over_seeds),
                str(one.close),
                str(len(one.behind)),
                *(_least_over(one, name) for name in baselines),
                *(_times_below(one, name) for name in baselines),
                *[str(one.diverged)] * with_diverged,
            ]
            for one in found
        ],
    )  # fmt: skip


def _on_baseline(name: str) -> str:
    return (
        f" Least over {name}: the smallest difference to it in any condition. Below "
        f"{name}: conditions in which the interval of the difference lies below zero."
    )


def _interval(summary: Summary) -> str:
    return signed_interval_text(summary.interval) if summary.interval else ABSENT


def _compared_with(one: Regrets, baseline: str) -> list[Group]:
    """Its groups that are compared with the baseline, the least ahead first."""
    groups = [behind.group for behind in one.behind.values()]
    compared = [g for g in groups if g.baseline and g.baseline.loss == baseline]
    paired = [g for g in compared if g.difference.mean is not None]
    return sorted(paired, key=lambda g: g.difference.mean or 0)


def _least_over(one: Regrets, baseline: str) -> Cell | str:
    compared = _compared_with(one, baseline)
    if not compared:
        return ABSENT
    least = compared[0]
    text = signed_text(least.difference.mean or 0)
    return Cell(f"{text} {_interval(least.difference)}", least.verdict)


def _times_below(one: Regrets, baseline: str) -> str:
    compared = _compared_with(one, baseline)
    return str(sum(g.verdict < 0 for g in compared)) if compared else ABSENT


@style.in_style
def figure(found: Sequence[Regrets], losses: Sequence[str]) -> Figure:
    """One line per loss: its regret in every condition, the largest and the mean."""
    drawing = style.new_figure(0.55 + 0.2 * len(found))
    axes = drawing.subplots()
    for place, one in enumerate(found):
        color, points = style.color(losses.index(one.loss)), list(one.points.values())
        axes.plot([0, one.largest], [place, place], color=color, linewidth=1)
        axes.plot(points, [place] * len(points), "o", color=color, markersize=3)
        axes.plot(one.mean, place, "|", color=color, markersize=11, markeredgewidth=2)
    axes.axvspan(0, CLOSE, color="#eeeeee", linewidth=0)
    axes.set_yticks(range(len(found)), [one.label for one in found])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(found) - 0.4, -0.6)
    # One loss far behind must not press the others together.
    axes.set_xscale("symlog", linthresh=2, linscale=1.5)
    most = max(one.largest for one in found)
    ticks = [t for t in _TICKS if t <= max(most, 1)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlim(left=0)
    axes.minorticks_off()
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    axes.set_xlabel("points of top-1 accuracy behind the best loss of a condition")
    return drawing


def data(found: Sequence[Regrets], groups: Sequence[Group]) -> list[list[Any]]:
    """The numbers of `figure`, as rows with a header; the groups name conditions."""
    names = _names(groups)
    lines = [
        [
            *(
                one.loss,
                TUNED if one.is_tuned else None,
                names[condition],
                behind.points,
            ),
            *(behind.paired.interval or (None, None)),
        ]
        for one in found
        for condition, behind in one.behind.items()
    ]
    return [["loss", "rate", "condition", "regret", "low", "high"], *lines]
