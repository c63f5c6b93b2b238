"""Plots of accuracies: bars over optimizers, and paired differences."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gift_jax.report.comparison import Comparison
from gift_jax.report.statistics import Group
from gift_jax.report.style import (
    ACCURACY,
    add_legend,
    color,
    hatch_style,
    in_style,
    new_figure,
    setup_labels,
)
from gift_jax.report.tables import rank

# With more losses than there are colours their names stand beside the bars.
_MAX_LOSSES_UPRIGHT = 7
_MAX_SETUPS_IN_A_ROW = 5
_INK = "#222222"


def bars(comparisons: Sequence[Comparison], losses: Sequence[str]) -> Figure:
    """Top-1 of every loss and setup, with intervals and the single seeds.

    Args:
      comparisons: Of one block.
      losses: All losses of the report, in the order of their colours.
    """
    shown = [loss for loss in losses if any(c.loss == loss for c in comparisons)]
    draw = _upright_bars if len(shown) <= _MAX_LOSSES_UPRIGHT else _lying_bars
    return draw(comparisons, shown, losses)


@in_style
def _upright_bars(
    comparisons: Sequence[Comparison], shown: Sequence[str], losses: Sequence[str]
) -> Figure:
    """Setups side by side, those of a protocol in rows of their own."""
    labels = setup_labels(comparisons)
    here = {(c.setup, c.loss): c.group for c in comparisons}
    lines = _lines(list(labels))
    figure = new_figure(0.4 + 2.0 * len(lines))
    grid = figure.subplots(len(lines), 1, sharey=True, squeeze=False)[:, 0]
    widest = max(map(len, lines))
    most = max(sum((setup, loss) in here for loss in shown) for setup in labels)
    width = 0.8 / most
    top = 0.0
    for axes, setups in zip(grid, lines, strict=True):
        places = {s: [loss for loss in shown if (s, loss) in here] for s in setups}
        for x, (setup, beside) in enumerate(places.items()):
            for place, loss in enumerate(beside):
                offset = (place - (len(beside) - 1) / 2) * width
                group = here[setup, loss]
                index = losses.index(loss)
                top = max(top, _bar(axes, x + offset, width, group, index))
        axes.set_xticks(range(len(setups)), [labels[setup] for setup in setups])
        axes.tick_params(axis="x", length=0)
        axes.set_xlim(-0.6, widest - 0.4)
        axes.set_ylabel(ACCURACY)
        axes.grid(True, axis="y")
    grid[0].set_ylim(0, min(top * 1.08, 104) if top else 100)
    add_legend(figure, shown, losses, patches=True)
    return figure


@in_style
def _lying_bars(
    comparisons: Sequence[Comparison], shown: Sequence[str], losses: Sequence[str]
) -> Figure:
    """Losses below one another, setups in panels."""
    labels = setup_labels(comparisons)
    columns = min(len(labels), 3)
    rows = math.ceil(len(labels) / columns)
    figure = new_figure((0.55 + 0.19 * len(shown)) * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(labels) :]:
        axes.set_axis_off()
    top = 0.0
    for axes, (setup, label) in zip(
        grid.flat[: len(labels)], labels.items(), strict=True
    ):
        for c in comparisons:
            if c.setup == setup:
                index = losses.index(c.loss)
                place = shown.index(c.loss)
                top = max(top, _bar(axes, place, 0.8, c.group, index, lying=True))
        axes.set_title(label.replace("\n", " "))
        axes.set_yticks(range(len(shown)), shown)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
    grid[0, 0].set_xlim(0, min(top * 1.08, 104) if top else 100)
    figure.supxlabel(ACCURACY, fontsize=8)
    return figure


def _lines(setups: Sequence[tuple]) -> list[list[tuple]]:
    """Setups in rows of about equal length, the default learning rates first."""
    lines = []
    kinds = {rank(setup[1])[0]: None for setup in setups}
    for kind in sorted(kinds):
        members = [setup for setup in setups if rank(setup[1])[0] == kind]
        length = math.ceil(
            len(members) / math.ceil(len(members) / _MAX_SETUPS_IN_A_ROW)
        )
        lines += [members[i : i + length] for i in range(0, len(members), length)]
    return lines


def _bar(
    axes: Axes,
    place: float,
    width: float,
    group: Group,
    index: int,
    lying: bool = False,
) -> float:
    """Draws one bar of the loss of that number; how far its data reach."""
    if group.diverged:
        axes.annotate(
            f"{len(group.diverged)}/{group.runs} diverged",
            (0, place) if lying else (place, 0),
            (2, 0) if lying else (0, 2),
            textcoords="offset points",
            rotation=0 if lying else 90,
            ha="left" if lying else "center",
            va="center" if lying else "bottom",
            fontsize=6,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4, "alpha": 0.85},
            zorder=4,
        )
    summary = group.summary("top1_last")
    if summary.mean is None:
        return 0.0
    draw = axes.barh if lying else axes.bar
    draw(
        place,
        summary.mean,
        width * 0.92,
        color=color(index),
        hatch=hatch_style(index),
        edgecolor="white",
        linewidth=0,
    )
    if summary.half_width is not None:
        axes.errorbar(
            summary.mean if lying else place,
            place if lying else summary.mean,
            xerr=summary.half_width if lying else None,
            yerr=None if lying else summary.half_width,
            color=_INK,
            elinewidth=0.8,
            capsize=2,
            capthick=0.8,
            zorder=3,
        )
    values = [row["top1_last"] for row in group.finished.values()]
    spread = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else np.zeros(1)
    places = place + spread * width
    axes.plot(
        values if lying else places,
        places if lying else values,
        "o",
        markersize=2.2,
        markerfacecolor="white",
        markeredgecolor=_INK,
        markeredgewidth=0.5,
        zorder=4,
    )
    return max(*values, summary.mean + (summary.half_width or 0))


@in_style
def differences(comparisons: Sequence[Comparison], losses: Sequence[str]) -> Figure:
    """Paired differences to the baseline with their intervals.

    Args:
      comparisons: Of one block; those that are no baseline and have a difference.
      losses: All losses of the report, in the order of their colours.
    """
    setups = setup_labels(comparisons)
    order = sorted(
        comparisons, key=lambda c: (list(setups).index(c.setup), losses.index(c.loss))
    )
    figure = new_figure(0.75 + 0.17 * len(order) + 0.08 * len(setups))
    axes = figure.subplots()
    axes.axvline(0, color="#555555", linewidth=0.8)
    y, ticks, labels, previous = 0.0, [], [], None
    for comparison in order:
        if previous not in (None, comparison.setup):
            y += 0.5
            axes.axhline(y - 0.75, color="#dddddd", linewidth=0.5)
        previous = comparison.setup
        _difference(axes, y, comparison, losses)
        ticks.append(y)
        label = setups[comparison.setup].replace("\n", " ")
        labels.append(f"{label}  {comparison.loss}".strip())
        y += 1
    axes.set_yticks(ticks, labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(y - 0.3, -0.7)
    axes.grid(True, axis="x")
    baseline = next(c.baseline.loss for c in order if c.baseline)
    axes.set_xlabel(f"difference to {baseline} in top-1 accuracy (points)")
    return figure


def _difference(
    axes: Axes, y: float, comparison: Comparison, losses: Sequence[str]
) -> None:
    difference = comparison.difference
    shade = color(losses.index(comparison.loss))
    axes.errorbar(
        np.asarray([difference.mean], float),
        y,
        xerr=difference.half_width,
        fmt="o",
        markersize=4,
        color=shade,
        markerfacecolor=shade if comparison.verdict else "white",
        elinewidth=1.2,
        capsize=2,
    )
