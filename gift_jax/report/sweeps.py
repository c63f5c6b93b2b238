"""Plots of accuracy over learning rate."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gift_jax.report.cells import format_setting
from gift_jax.report.statistics import Group, Summary
from gift_jax.report.style import (
    ACCURACY,
    add_legend,
    color,
    in_style,
    line_style,
    marker_style,
    new_figure,
    side_by_side,
)
from gift_jax.report.tuning import Tuning

_PANEL = ("optimizer", "weight_decay", "schedule")


@in_style
def learning_rates(groups: Sequence[Group], losses: Sequence[str]) -> Figure:
    """Top-1 on the test split, one panel for every optimizer with several rates.

    Args:
      groups: Of one block; those of optimizers with several learning rates.
      losses: All losses of the report, in the order of their colours.
    """
    panels: dict[tuple, list[Group]] = {}
    for group in groups:
        panels.setdefault(_panel(group.settings), []).append(group)
    shown = [loss for loss in losses if any(g.loss == loss for g in groups)]
    figure, grid = new_panels(_titles(list(panels)), xlabel="learning rate")
    for axes, members in zip(grid, panels.values(), strict=True):
        for loss, shift in side_by_side(shown):
            lines = [group for group in members if group.loss == loss]
            points = [(g.settings["learning_rate"], g) for g in lines]
            draw_line(axes, points, losses.index(loss), shift)
        set_ticks(axes, (group.settings["learning_rate"] for group in members))
    add_legend(figure, shown, losses)
    return figure


@in_style
def held_out_learning_rates(tunings: Sequence[Tuning], losses: Sequence[str]) -> Figure:
    """Top-1 on held-out images, one panel for every optimizer.

    The chosen rates are ringed; a line stands at the default.

    Args:
      tunings: Of one block.
      losses: All losses of the report, in the order of their colours.
    """
    panels: dict[tuple, list[Tuning]] = {}
    for tuning in tunings:
        panels.setdefault(_panel(tuning.settings), []).append(tuning)
    shown = [x for x in losses if any(t.settings["loss"] == x for t in tunings)]
    figure, grid = new_panels(_titles(list(panels)), xlabel="learning rate")
    for axes in grid:
        axes.set_ylabel(axes.get_ylabel() and "held-out top-1 (%)")
    for axes, members in zip(grid, panels.values(), strict=True):
        for default in {t.default_learning_rate for t in members}:
            axes.axvline(default, color="#777777", linestyle=":", linewidth=1, zorder=0)
        by_loss = {t.settings["loss"]: t for t in members}
        for loss, shift in side_by_side(shown):
            if loss in by_loss:
                _tried(axes, by_loss[loss], losses.index(loss), shift)
        set_ticks(axes, (rate for t in members for rate, _ in t.tried))
    add_legend(figure, shown, losses)
    return figure


def _tried(axes: Axes, tuning: Tuning, index: int, shift: float) -> None:
    points = [(rate * shift, top1) for rate, top1 in tuning.tried if top1 is not None]
    axes.plot(
        [rate for rate, _ in points],
        [top1 for _, top1 in points],
        linestyle=line_style(index),
        marker=marker_style(index),
        markersize=3.5,
        color=color(index),
    )
    _crosses(axes, [r * shift for r, top1 in tuning.tried if top1 is None], index)
    chosen = [(r, top1) for r, top1 in tuning.tried if r == tuning.learning_rate]
    axes.plot(
        [rate * shift for rate, _ in chosen],
        np.asarray([top1 for _, top1 in chosen], float),
        "o",
        markersize=8,
        markerfacecolor="none",
        markeredgecolor=color(index),
        markeredgewidth=1.2,
    )


def draw_line(
    axes: Axes, points: Sequence[tuple[float, Group]], index: int, shift: float
) -> None:
    """Mean accuracies of groups with intervals, and crosses where runs diverged.

    Args:
      axes: Panel with a logarithmic axis.
      points: Place on that axis, and group; in any order.
      index: Number of the loss.
      shift: Factor of the places, see `side_by_side`.
    """
    points = sorted(points, key=lambda point: point[0])
    drawn: list[tuple[float, Summary]] = [
        (place, group.summary("top1_last")) for place, group in points if group.finished
    ]
    axes.errorbar(
        [place * shift for place, _ in drawn],
        np.asarray([summary.mean for _, summary in drawn], float),
        [summary.half_width or 0 for _, summary in drawn],
        linestyle=line_style(index),
        marker=marker_style(index),
        markersize=3.5,
        color=color(index),
        capsize=2,
        elinewidth=0.8,
    )
    _crosses(axes, [place * shift for place, group in points if group.diverged], index)


def _crosses(axes: Axes, places: Sequence[float], index: int) -> None:
    if not places:  # matplotlib 3.10 lays out no figure with an unclipped empty line
        return
    axes.plot(
        places,
        np.full(len(places), 0.03),
        "x",
        transform=axes.get_xaxis_transform(),
        color=color(index),
        markersize=5,
        clip_on=False,
    )


def set_ticks(axes: Axes, places: Iterable[float], most: int = 5) -> None:
    """Ticks of a logarithmic axis at some of the places where there are points."""
    places = sorted(set(places))
    shown = places[:: math.ceil(len(places) / most)]
    axes.set_xticks(shown, [f"{place:g}" for place in shown])
    axes.xaxis.set_minor_locator(ticker.NullLocator())


def new_panels(titles: Sequence[str], xlabel: str) -> tuple[Figure, list[Axes]]:
    """Panels of accuracies over a logarithmic axis, two in a row."""
    columns = min(len(titles), 2)
    rows = math.ceil(len(titles) / columns)
    figure = new_figure(0.4 + 2.0 * rows)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes in grid.flat[len(titles) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel(ACCURACY)
    panels = list(grid.flat[: len(titles)])
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title)
        axes.set_xscale("log")
        axes.set_xlabel(xlabel)
        axes.grid(True)
    return figure, panels


def _panel(settings: Mapping[str, Any]) -> tuple:
    return tuple(settings.get(name) for name in _PANEL)


def _titles(panels: Sequence[tuple]) -> list[str]:
    """Optimizers, with weight decay and schedule where one has several."""
    titles = []
    for optimizer, decay, schedule in panels:
        others = [panel for panel in panels if panel[0] == optimizer]
        title = optimizer
        if len({panel[1] for panel in others}) > 1:
            title += f", weight decay {format_setting(decay)}"
        if len({panel[2] for panel in others}) > 1:
            title += f", {format_setting(schedule)}"
        titles.append(title)
    return titles
