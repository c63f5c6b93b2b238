"""Bars over optimizers, paired differences, and distilled images with their labels.

`groups` are those of one benchmark, `losses` all of the report in the order of their
colours.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gift_jax.pipeline.results import OPTIMIZER
from gift_jax.report import style
from gift_jax.report.examples import Examples
from gift_jax.report.groups import Group, rank

# With more losses than there are colours their names stand beside the bars.
_MAX_LOSSES_UPRIGHT = 7
_MAX_OPTIMIZERS_IN_A_ROW = 5
_INK = "#222222"
_CLASSES_SHOWN = 5
_HARD_LABEL, _OTHER = "#D55E00", "#8a8a8a"


@style.in_style
def bars(groups: Sequence[Group], losses: Sequence[str]) -> Figure:
    """Top-1 of every loss and optimizer, with intervals and the single seeds."""
    shown = [loss for loss in losses if any(g.loss == loss for g in groups)]
    draw = _upright_bars if len(shown) <= _MAX_LOSSES_UPRIGHT else _lying_bars
    return draw(groups, shown, losses)


def _upright_bars(
    groups: Sequence[Group], shown: Sequence[str], losses: Sequence[str]
) -> Figure:
    """Optimizers side by side, those of a protocol in rows of their own."""
    labels = style.optimizer_labels(groups)
    here = {(g.of(OPTIMIZER), g.loss): g for g in groups}
    beside = {o: [here[o, x] for x in shown if (o, x) in here] for o in labels}
    lines = _lines(list(labels))
    figure, grid = style.new_panels(len(lines), columns=1, row=2, margin=0.4)
    width = 0.8 / max(map(len, beside.values()))
    top = 0.0
    for axes, optimizers in zip(grid[:, 0], lines, strict=True):
        for x, members in enumerate(beside[o] for o in optimizers):
            for place, g in enumerate(members, start=1):
                x_of_bar = x + (place - (len(members) + 1) / 2) * width
                top = max(top, _bar(axes, x_of_bar, width, g, losses.index(g.loss)))
        axes.set_xticks(range(len(optimizers)), [labels[o] for o in optimizers])
        axes.tick_params(axis="x", length=0)
        axes.set_xlim(-0.6, max(map(len, lines)) - 0.4)
        axes.set_ylabel(style.ACCURACY)
        axes.grid(True, axis="y")
    grid[0, 0].set_ylim(0, min(top * 1.08, 104) if top else 100)
    style.add_legend(figure, shown, losses, "patches")
    return figure


def _lying_bars(
    groups: Sequence[Group], shown: Sequence[str], losses: Sequence[str]
) -> Figure:
    """Losses below one another, optimizers in panels."""
    labels = style.optimizer_labels(groups)
    row = 0.55 + 0.19 * len(shown)
    figure, grid = style.new_panels(
        len(labels), columns=3, row=row, margin=0, sharex=True
    )
    top = 0.0
    for axes, (optimizer, label) in zip(grid.flat, labels.items(), strict=False):
        for g in groups:
            if g.of(OPTIMIZER) == optimizer:
                place, index = shown.index(g.loss), losses.index(g.loss)
                top = max(top, _bar(axes, place, 0.8, g, index, lying=True))
        axes.set_title(label.replace("\n", " "))
        axes.set_yticks(range(len(shown)), shown)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
    grid[0, 0].set_xlim(0, min(top * 1.08, 104) if top else 100)
    figure.supxlabel(style.ACCURACY, fontsize=8)
    return figure


def _lines(optimizers: Sequence[tuple]) -> list[list[tuple]]:
    """Optimizers in rows of about equal length, the default learning rates first."""
    lines = []
    for kind in sorted({rank(o[1])[0] for o in optimizers}):
        members = [o for o in optimizers if rank(o[1])[0] == kind]
        count = math.ceil(len(members) / _MAX_OPTIMIZERS_IN_A_ROW)
        length = math.ceil(len(members) / count)
        lines += [members[i : i + length] for i in range(0, len(members), length)]
    return lines


def _bar(
    axes: Axes, place: float, width: float, group: Group, index: int, *,
    lying: bool = False,
) -> float:  # fmt: skip
    """Draws one bar of the loss of that number; how far its data reach."""

    def turned(along: object, value: object) -> tuple:
        return (value, along) if lying else (along, value)

    if group.diverged:
        axes.annotate(
            f"{len(group.diverged)}/{len(group.rows)} diverged",
            turned(place, 0), turned(0, 2), textcoords="offset points", fontsize=6,
            rotation=0 if lying else 90, ha="left" if lying else "center",
            va="center" if lying else "bottom", zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4, "alpha": 0.85},
        )  # fmt: skip
    summary = group.summary("top1_last")
    if summary.mean is None:
        return 0.0
    draw = axes.barh if lying else axes.bar
    look = {"color": style.color(index), **style.bar_style(index)}
    draw(place, summary.mean, width * 0.92, **look)
    if summary.half_width is not None:
        x, y = turned(place, summary.mean)
        xerr, yerr = turned(None, summary.half_width)
        axes.errorbar(
            x, y, xerr=xerr, yerr=yerr, color=_INK, elinewidth=0.8, capsize=2,
            capthick=0.8, zorder=3,
        )  # fmt: skip
    values = [row["top1_last"] for row in group.finished.values()]
    spread = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else np.zeros(1)
    axes.plot(
        *turned(place + spread * width, values), "o", markersize=2.2, zorder=4,
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


def _picture(axes: Axes, image: np.ndarray) -> None:
    is_grey = image.shape[-1] == 1
    axes.imshow(
        image[..., 0] if is_grey else image, cmap="gray" if is_grey else None, vmin=0,
        vmax=1, interpolation="nearest",
    )  # fmt: skip
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _most_probable(axes: Axes, probabilities: np.ndarray, label: int) -> None:
    """Classes in bars from the top."""
    classes = np.argsort(-probabilities, kind="stable")[:_CLASSES_SHOWN]
    colors = [_HARD_LABEL if c == label else _OTHER for c in classes]
    axes.barh(range(len(classes)), probabilities[classes], 0.7, color=colors)
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
