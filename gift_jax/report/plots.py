"""Bars over optimizers, paired differences, and distilled images with their labels.

`groups` are those of one benchmark, `losses` are all losses of the report in the order
of their colours.
"""

import itertools
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gift_jax.pipeline.results import OPTIMIZER
from gift_jax.report import style
from gift_jax.report.examples import Examples
from gift_jax.report.groups import Group

_INK = "#222222"
_CLASSES_SHOWN = 5
_TITLE_WIDTH = 26  # characters over a third of the page
_HARD_LABEL, _OTHER = "#D55E00", "#8a8a8a"


@style.in_style
def bars(groups: Sequence[Group], losses: Sequence[str]) -> Figure:
    """Top-1 of losses, with intervals and single seeds; one panel per optimizer."""
    shown = [loss for loss in losses if any(g.loss == loss for g in groups)]
    labels = style.optimizer_labels(groups)
    row = 0.55 + 0.19 * len(shown)
    figure, grid = style.new_panels(
        len(labels), columns=3, row=row, margin=0.2, sharex=True
    )
    top = 0.0
    for axes, (optimizer, label) in zip(grid.flat, labels.items(), strict=False):
        for g in groups:
            if g.of(OPTIMIZER) == optimizer:
                top = max(top, _bar(axes, shown.index(g.loss), g, losses))
        axes.set_title(label.replace("\n", " "))
        axes.set_yticks(range(len(shown)), shown)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelbottom=True)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
    grid[0, 0].set_xlim(0, min(top * 1.08, 104) if top else 100)
    figure.supxlabel(style.ACCURACY, fontsize=8)
    return figure


def _bar(axes: Axes, place: int, group: Group, losses: Sequence[str]) -> float:
    """Draws the bar of a group; returns how far its data reach."""
    if group.diverged:
        axes.annotate(
            f"{len(group.diverged)}/{len(group.rows)} diverged",
            (0, place), (2, 0), textcoords="offset points", fontsize=6, va="center",
            zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4, "alpha": 0.85},
        )  # fmt: skip
    summary = group.summary("top1_last")
    if summary.mean is None:
        return 0.0
    axes.barh(place, summary.mean, 0.74, color=style.color(losses.index(group.loss)))
    if summary.half_width is not None:
        axes.errorbar(
            summary.mean, place, xerr=summary.half_width, color=_INK, elinewidth=0.8,
            capsize=2, capthick=0.8, zorder=3,
        )  # fmt: skip
    values = [row["top1_last"] for row in group.finished.values()]
    spread = np.linspace(-0.14, 0.14, len(values)) if len(values) > 1 else np.zeros(1)
    axes.plot(
        values, place + spread, "o", markersize=2.2, zorder=4,
        markerfacecolor="white", markeredgecolor=_INK, markeredgewidth=0.5,
    )  # fmt: skip
    return max(*values, summary.mean + (summary.half_width or 0))


@style.in_style
def differences(groups: Sequence[Group], losses: Sequence[str]) -> Figure:
    """Paired differences to the baseline, which all groups have, with intervals."""
    labels = style.optimizer_labels(groups)
    places = {optimizer: place for place, optimizer in enumerate(labels)}
    order = sorted(
        groups, key=lambda g: (places[g.of(OPTIMIZER)], losses.index(g.loss))
    )
    figure = style.new_figure(0.75 + 0.17 * len(order) + 0.08 * len(labels))
    axes = figure.subplots()
    axes.axvline(0, color="#555555", linewidth=0.8)
    # A gap of half a line is between optimizers.
    ticks = [i + 0.5 * places[g.of(OPTIMIZER)] for i, g in enumerate(order)]
    for y, below in itertools.pairwise(ticks):
        if below - y > 1:
            axes.axhline(y + 0.75, color="#dddddd", linewidth=0.5)
    for y, g in zip(ticks, order, strict=True):
        shade = style.color(losses.index(g.loss))
        axes.errorbar(
            np.asarray([g.difference.mean], float), y, xerr=g.difference.half_width,
            fmt="o", markersize=4, color=shade, elinewidth=1.2, capsize=2,
            markerfacecolor=shade if g.verdict else "white",
        )  # fmt: skip
    names = [labels[g.of(OPTIMIZER)].replace("\n", " ") + f"  {g.loss}" for g in order]
    axes.set_yticks(ticks, names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(ticks[-1] + 0.7, -0.7)
    axes.grid(True, axis="x")
    baseline = next(g.baseline.loss for g in order if g.baseline)
    axes.set_xlabel(f"difference to {baseline} in top-1 accuracy (points)")
    return figure


@style.in_style
def images(shown: Examples) -> Figure:
    """Images, view 0 of them, and its most probable classes.

    The class of the hard label is drawn in another colour.
    """
    pictures = {"image": shown.images}
    if shown.views is not None:
        pictures["view 0"] = shown.views
    heights = [1.0] * len(pictures) + [1.25] * (shown.probabilities is not None)
    figure = style.new_figure(0.25 + 0.9 * sum(heights))
    grid = figure.subplots(
        len(heights), len(shown.images), squeeze=False, height_ratios=heights
    )
    for row, (name, several) in zip(grid, pictures.items(), strict=False):
        row[0].set_ylabel(name)
        for axes, image in zip(row, several, strict=True):
            _picture(axes, image)
    for axes, label in zip(grid[0], shown.labels, strict=True):
        axes.set_title(f"class {label}")
    if shown.probabilities is not None:
        for axes, *soft in zip(
            grid[-1], shown.probabilities, shown.labels, strict=True
        ):
            _most_probable(axes, *soft)
        grid[-1, 0].set_ylabel("class")
        figure.supxlabel("probability in the soft label", fontsize=8)
    return figure


@style.in_style
def side_by_side(shown: Sequence[Examples]) -> Figure:
    """The first classes of every distilled dataset, a panel each."""
    figure, panels = style.new_panels(len(shown), columns=3, row=3.7, margin=0.1)
    for axes, examples in zip(panels.flat, shown, strict=False):
        assert examples.grid is not None
        _picture(axes, examples.grid / 255)
        axes.set_title(textwrap.fill(examples.name, _TITLE_WIDTH), fontsize=7)
    return figure


def _picture(axes: Axes, image: np.ndarray) -> None:
    is_grey = image.shape[-1] == 1
    axes.imshow(
        image[..., 0] if is_grey else image, cmap="gray" if is_grey else None, vmin=0,
        vmax=1, interpolation="nearest",
    )  # fmt: skip
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _most_probable(axes: Axes, probabilities: np.ndarray, label: int) -> None:
    """Draws the most probable classes as bars, from the top."""
    classes = np.argsort(-probabilities, kind="stable")[:_CLASSES_SHOWN]
    colors = [_HARD_LABEL if c == label else _OTHER for c in classes]
    # Hatched as well, for print in grey.
    hatches = ["////" if c == label else "" for c in classes]
    axes.barh(
        range(len(classes)), probabilities[classes], 0.7, color=colors, hatch=hatches,
        edgecolor="white", linewidth=0,
    )  # fmt: skip
    for place, probability in enumerate(probabilities[classes]):
        inside = probability > 0.55
        axes.text(
            probability + (-0.03 if inside else 0.03), place, f"{probability:.2f}",
            ha="right" if inside else "left", va="center", fontsize=6,
            color="white" if inside else "black",
        )  # fmt: skip
    axes.set_yticks(range(len(classes)), [str(c) for c in classes])
    axes.tick_params(axis="y", length=0, pad=2)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 1], ["0", "1"])
