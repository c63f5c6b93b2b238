"""Regret: how far a loss stays behind the best one, over all that it was run under."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gift_jax.pipeline.results import BENCHMARK
from gift_jax.report import style
from gift_jax.report.formatting import setting_text
from gift_jax.report.groups import TUNED, Group, distinguishing
from gift_jax.report.markup import Table

# Points behind the best that still count as equal to it.
CLOSE = 0.5
_TICKS = (0, 0.5, 1, 2, 5, 10, 20, 50)
_CONDITION = (*BENCHMARK, "optimizer", "weight_decay", "schedule")


@dataclasses.dataclass(frozen=True)
class Regrets:
    """Of a loss, at its default or its tuned learning rates.

    Attributes:
      loss: The loss.
      protocol: As of `Group`.
      points: By condition, accuracy of the best loss in it minus that of this one.
      diverged: Conditions in which no run of it finished.
    """

    loss: str
    protocol: str | None
    points: Mapping[tuple, float]
    diverged: int

    @property
    def label(self) -> str:
        """Loss and protocol."""
        return f"{self.loss}, tuned" if self.protocol == TUNED else self.loss

    @property
    def worst(self) -> tuple:
        """The condition in which it is furthest behind."""
        return max(self.points, key=lambda condition: self.points[condition])

    @property
    def largest(self) -> float:
        """In the worst condition."""
        return max(self.points.values())

    @property
    def mean(self) -> float:
        """Over the conditions."""
        return float(np.mean(list(self.points.values())))

    @property
    def close(self) -> int:
        """In how many conditions it is at most `CLOSE` behind."""
        return sum(points <= CLOSE for points in self.points.values())


def _condition(group: Group) -> tuple:
    """All but the loss; rates of its own that a loss has by protocol, too."""
    rate = None if group.protocol else group.settings["learning_rate"]
    return (*group.of(_CONDITION), rate)


def regrets(groups: Sequence[Group]) -> list[Regrets]:
    """Of every loss, the smallest worst case first; none for fewer than two conditions.

    The best of a condition is that of all losses, at default and tuned rates; where
    there is one loss only, nothing is compared. Losses that never finished are left
    out.
    """
    by_condition: dict[tuple, list[Group]] = collections.defaultdict(list)
    for g in groups:
        by_condition[_condition(g)].append(g)
    found: dict[tuple, dict[tuple, float]] = collections.defaultdict(dict)
    diverged: collections.Counter[tuple] = collections.Counter()
    for condition, members in by_condition.items():
        means = {g: g.summary("top1_last").mean for g in members}
        finished = [mean for mean in means.values() if mean is not None]
        if len({g.loss for g in members}) == 1 or not finished:
            continue
        for g, mean in means.items():
            if mean is None:
                diverged[g.loss, g.protocol] += 1
            else:
                found[g.loss, g.protocol][condition] = max(finished) - mean
    if len({condition for points in found.values() for condition in points}) < 2:
        return []
    all_regrets = [
        Regrets(loss, protocol, points, diverged[loss, protocol])
        for (loss, protocol), points in found.items()
    ]
    return sorted(all_regrets, key=lambda one: (one.diverged, one.largest))


def _names(groups: Sequence[Group]) -> dict[tuple, str]:
    """What conditions are called: by all that tells them apart."""
    names = distinguishing(groups)
    found = {}
    for g in groups:
        own = [n for n in names if not (g.protocol and n == "learning_rate")]
        found[_condition(g)] = ", ".join(setting_text(g, name) for name in own)
    return found


def table(groups: Sequence[Group]) -> Table | None:
    """A row a loss; None where losses are compared in fewer than two conditions."""
    found = regrets(groups)
    if not found:
        return None
    names = _names(groups)
    with_diverged = any(one.diverged for one in found)
    return Table(
        "regret",
        "Regret",
        "How many points of top-1 accuracy after the last epoch a loss stays behind "
        "the best loss of a condition, both means over seeds; the best is that of all, "
        "at default and at tuned rates. A condition is all that a loss is run under, "
        "such as an optimizer and a dataset. The best of several means is better than "
        "it would be again: a loss that is as good as the best has a regret of about "
        "the spread of the seeds.",
        ["loss", "worst condition"],
        [
            "largest", "mean", f"within {CLOSE:g}", "conditions",
            *["diverged"] * with_diverged,
        ],
        [
            [
                one.label,
                names[one.worst],
                f"{one.largest:.2f}",
                f"{one.mean:.2f}",
                str(one.close),
                str(len(one.points)),
                *[str(one.diverged)] * with_diverged,
            ]
            for one in found
        ],
    )  # fmt: skip


@style.in_style
def figure(found: Sequence[Regrets], losses: Sequence[str]) -> Figure:
    """A line a loss: its regret in every condition, the largest and the mean."""
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
        [one.loss, one.protocol, names[condition], points]
        for one in found
        for condition, points in one.points.items()
    ]
    return [["loss", "protocol", "condition", "regret"], *lines]
