"""Plots over epochs: accuracies and gradient norms."""

import collections
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gift_jax.report.comparison import Comparison
from gift_jax.report.reading import Curve, RunKey, run_key
from gift_jax.report.statistics import Row
from gift_jax.report.style import (
    ACCURACY,
    add_legend,
    color,
    in_style,
    line_style,
    marker_style,
    new_figure,
    setup_labels,
)

Curves = Mapping[RunKey, Curve]


@in_style
def learning_curves(
    comparisons: Sequence[Comparison], curves: Curves, losses: Sequence[str]
) -> Figure:
    """Accuracy over epochs, one row of panels for every setup.

    Args:
      comparisons: Of one block, each with a run that has a curve.
      curves: By run.
      losses: All losses of the report, in the order of their colours.
    """
    setups = setup_labels(comparisons)
    figure = new_figure(0.5 + 1.6 * len(setups))
    grid = figure.subplots(len(setups), 2, sharex=True, sharey=True, squeeze=False)
    for row, (setup, label) in zip(grid, setups.items(), strict=True):
        row[0].set_ylabel(label)
        for c in comparisons:
            if c.setup == setup:
                _accuracies(row, c, curves, losses.index(c.loss))
        for axes in row:
            axes.grid(True)
    grid[0, 0].set_title("on the views that are trained on")
    grid[0, 1].set_title("on the test split")
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    figure.supylabel(ACCURACY, fontsize=8)
    shown = [loss for loss in losses if any(c.loss == loss for c in comparisons)]
    add_legend(figure, shown, losses)
    return figure


def _accuracies(
    row: Sequence[Axes], comparison: Comparison, curves: Curves, index: int
) -> None:
    """Finished runs as their mean and range, diverged ones each by itself."""
    group = comparison.group
    finished = _of_runs(group.finished, curves)
    for axes, kind in zip(row, ("train", "test"), strict=True):
        marker = marker_style(index) if kind == "test" else ""
        _mean_and_range(axes, [getattr(c, kind) for c in finished], index, marker)
    for curve in _of_runs(group.diverged, curves):
        _ended(row[0], curve.train, index)


def _of_runs(runs: Mapping[int, Row], curves: Curves) -> list[Curve]:
    found = (curves.get(run_key(run)) for run in runs.values())
    return [curve for curve in found if curve is not None]


def _mean_and_range(
    axes: Axes, curves: Sequence[np.ndarray], index: int, marker: str = ""
) -> None:
    epochs, low, mean, high = mean_curve(curves)
    axes.plot(
        epochs,
        mean,
        linestyle=line_style(index),
        marker=marker,
        markersize=3,
        color=color(index),
    )
    axes.fill_between(epochs, low, high, color=color(index), alpha=0.18, linewidth=0)


def _ended(axes: Axes, curve: np.ndarray, index: int) -> None:
    axes.plot(*curve.T, ":", color=color(index), linewidth=0.9)
    axes.plot(*curve[-1], "x", color=color(index), markersize=5)


@in_style
def gradient_norms(
    comparisons: Sequence[Comparison], curves: Curves, losses: Sequence[str]
) -> Figure:
    """Gradient norms over epochs on a logarithmic axis, one panel for every setup.

    Args:
      comparisons: Of one block, each with a run whose norms were recorded.
      curves: By run.
      losses: All losses of the report, in the order of their colours.
    """
    setups = setup_labels(comparisons)
    columns = min(len(setups), 2)
    rows = math.ceil(len(setups) / columns)
    figure = new_figure(0.5 + 1.7 * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(setups) :]:
        axes.set_axis_off()
    for axes, (setup, label) in zip(grid.flat, setups.items(), strict=False):
        axes.set_title(label.replace("\n", " "))
        axes.set_yscale("log")
        axes.grid(True)
        for c in comparisons:
            if c.setup != setup:
                continue
            index = losses.index(c.loss)
            finished = _of_runs(c.group.finished, curves)
            _mean_and_range(axes, [_positive(curve) for curve in finished], index)
            for curve in _of_runs(c.group.diverged, curves):
                if len(_positive(curve)):
                    _ended(axes, _positive(curve), index)
    for axes in grid.flat[max(len(setups) - columns, 0) : len(setups)]:
        axes.set_xlabel("epoch")
        axes.tick_params(labelbottom=True)
    figure.supylabel("gradient norm", fontsize=8)
    shown = [loss for loss in losses if any(c.loss == loss for c in comparisons)]
    add_legend(figure, shown, losses, markers=False)
    return figure


def _positive(curve: Curve) -> np.ndarray:
    return curve.gradient[curve.gradient[:, 1] > 0]


def mean_curve(curves: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The mean and range of curves where all of them have a point.

    Args:
      curves: Each (points, 2) float: epoch, value.

    Returns:
      Epochs, lowest, mean and highest value; each (points,) float.
    """
    values: dict[float, list[float]] = collections.defaultdict(list)
    for curve in curves:
        for epoch, value in curve:
            values[epoch].append(value)
    common = sorted(epoch for epoch, v in values.items() if len(v) == len(curves))
    if not common:
        return (np.empty(0),) * 4
    stacked = np.asarray([values[epoch] for epoch in common])
    low, mean, high = stacked.min(1), stacked.mean(1), stacked.max(1)
    return np.asarray(common), low, mean, high
