"""Lines: over epochs, learning rates, images per class, and bytes of soft labels.

`groups` are those of one benchmark unless stated otherwise, `losses` are all losses of
the report in the order of their colours.
"""

import collections
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gift_jax.pipeline.results import OPTIMIZER, Row
from gift_jax.report import formatting, style
from gift_jax.report.groups import BYTES, FIELDS, TUNED, Group, telling
from gift_jax.report.reading import Curve, RunKey, run_key
from gift_jax.runtime.units import readable_size

Curves = Mapping[RunKey, Curve]

_MOST_TICKS = 5
_MARKERS = 6  # along a curve


@style.in_style
def learning_curves(
    groups: Sequence[Group], curves: Curves, losses: Sequence[str]
) -> Figure:
    """Accuracy over epochs of runs with curves, one row of panels per optimizer."""
    labels = style.optimizer_labels(groups)
    figure = style.new_figure(0.5 + 1.6 * len(labels))
    grid = figure.subplots(len(labels), 2, sharex=True, sharey=True, squeeze=False)
    for row, (optimizer, label) in zip(grid, labels.items(), strict=True):
        row[0].set_ylabel(label)
        for g in (g for g in groups if g.of(OPTIMIZER) == optimizer):
            index, finished = losses.index(g.loss), of_runs(g.finished.values(), curves)
            draw_mean(row[0], [c.train for c in finished], index)
            draw_mean(row[1], [c.test for c in finished], index)
            for curve in of_runs(g.diverged.values(), curves):
                _draw_diverged(row[0], curve.train, index)
        for axes in row:
            axes.grid(True)
    grid[0, 0].set_title("on the views that are trained on")
    grid[0, 1].set_title("on the test split")
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    figure.supylabel(style.ACCURACY, fontsize=8)
    add_legend(figure, groups, losses)
    return figure


@style.in_style
def gradient_norms(
    groups: Sequence[Group], curves: Curves, losses: Sequence[str]
) -> Figure:
    """Norms over epochs of runs that have some, one panel per optimizer."""
    labels = style.optimizer_labels(groups)
    count = len(labels)
    figure, grid = style.new_panels(count, columns=2, row=1.7, margin=0.5, sharex=True)
    for axes, (optimizer, label) in zip(grid.flat, labels.items(), strict=False):
        axes.set_title(label.replace("\n", " "))
        axes.set_yscale("log")
        axes.grid(True)
        for g in (g for g in groups if g.of(OPTIMIZER) == optimizer):
            index = losses.index(g.loss)
            draw_mean(
                axes,
                [_positive(c) for c in of_runs(g.finished.values(), curves)],
                index,
            )
            for curve in of_runs(g.diverged.values(), curves):
                _draw_diverged(axes, _positive(curve), index)
    style.label_epochs(grid, count)
    figure.supylabel("gradient norm", fontsize=8)
    add_legend(figure, groups, losses)
    return figure


def of_runs(rows: Iterable[Row], curves: Curves) -> list[Curve]:
    """The curves of those runs that have one."""
    return [curves[run_key(row)] for row in rows if run_key(row) in curves]


def _positive(curve: Curve) -> np.ndarray:
    return curve.gradient[curve.gradient[:, 1] > 0]


def add_legend(figure: Figure, groups: Sequence[Group], losses: Sequence[str]) -> None:
    """Adds a legend of the groups' losses."""
    here = {g.loss for g in groups}
    shown = [loss for loss in losses if loss in here]
    style.add_legend(figure, shown, losses)


def draw_mean(axes: Axes, curves: Sequence[np.ndarray], index: int) -> None:
    """The mean and range of runs' curves, in the style of a loss.

    Each loss has markers in other places: only they tell losses apart in grey print.
    """
    epochs, low, mean, high = mean_curve(curves)
    apart = math.ceil(len(epochs) / _MARKERS)
    every = (index % apart, apart) if apart else None
    axes.plot(epochs, mean, markevery=every, **style.line_style(index, size=3))
    shade = style.color(index)
    axes.fill_between(epochs, low, high, color=shade, alpha=0.18, linewidth=0)


def _draw_diverged(axes: Axes, curve: np.ndarray, index: int) -> None:
    """A single run that diverged, with a cross where it ended."""
    axes.plot(*curve.T, ":", color=style.color(index), linewidth=0.9)
    axes.plot(*curve[-1:].T, "x", color=style.color(index), markersize=5)


def mean_curve(curves: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The mean and range of curves where all of them have a point.

    Args:
      curves: Each (points, 2) float: epoch, value.

    Returns:
      Epochs, lowest, mean and highest value; each (points,) float.
    """
    by_epoch = [dict(curve.tolist()) for curve in curves]
    common = sorted(set(by_epoch[0]).intersection(*by_epoch)) if curves else []
    values = np.array([[run[epoch] for epoch in common] for run in by_epoch] or [[]])
    return np.array(common), values.min(0), values.mean(0), values.max(0)


class Point(NamedTuple):
    """A point of a line over a logarithmic axis; half width 0 means no interval."""

    place: float
    mean: float | None
    half_width: float | None = None
    has_diverged: bool = False
    is_chosen: bool = False
    note: str = ""


class Panel(NamedTuple):
    """A title, the points of every line, and places of dotted lines."""

    title: str
    lines: Mapping[str, Sequence[Point]]
    marked: Sequence[float] = ()


class Over(NamedTuple):
    """A setting that accuracies are drawn over, for groups of all benchmarks.

    Attributes:
      place: The setting of the axis.
      line: The setting that tells lines apart.
      along: Settings that differ along a line, too.
      follow: Settings that may differ along it where every place still has one group.
      xlabel: Label below a panel.
    """

    place: str
    line: str
    along: Sequence[str]
    follow: Sequence[str]
    xlabel: str


OVER_IPC = Over(
    "ipc", "loss", ["distilled_fingerprint", "trained_on", "protocol_changes"],
    ["views", "epochs", "batch_size", "eval_every"], "images per class",
)  # fmt: skip
OVER_BYTES = Over(
    BYTES, "label_format", ["views", "trained_on", "protocol_changes"],
    [], "soft labels on disk",
)  # fmt: skip


def panels_of(groups: Sequence[Group], over: Over) -> list[list[Group]]:
    """Groups in panels that have one group in every place, and several places."""

    def is_clear(members: Sequence[Group]) -> bool:
        return len({g.of((over.line, over.place)) for g in members}) == len(members)

    fields = [n for n in FIELDS if n not in (over.place, over.line, *over.along)]
    few = [n for n in fields if n not in over.follow]
    panels: list[list[Group]] = []
    stored = [g for g in groups if g.setting(over.place)]
    for members in _by(stored, lambda g: g.of(few)).values():
        apart = _by(members, lambda g: g.of(fields)).values()
        panels += [members] if is_clear(members) else filter(is_clear, apart)
    return [p for p in panels if len({g.setting(over.place) for g in p}) > 1]


def over_setting(
    panels: Sequence[Sequence[Group]], over: Over, losses: Sequence[str]
) -> Figure:
    """Top-1 on the test split of the groups in `panels_of`."""
    apart = (over.place, over.line, *over.along, *over.follow)
    one_value = [
        name
        for name in FIELDS
        if all(len({g.setting(name) for g in p}) == 1 for p in panels)
    ]
    same = [name for name in one_value if name not in apart]
    names = telling([p[0] for p in panels], same)
    drawn = []
    for p in panels:
        title = ", ".join(_title_part(p[0], name) for name in names)
        drawn.append(Panel(title, _points(p, over.line, over.place)))
    labels = list(dict.fromkeys(label for panel in drawn for label in panel.lines))
    if over.line == "loss":
        labels = list(losses)
    return _draw(drawn, labels, over.xlabel, apart=over.line == "loss")


def _title_part(group: Group, name: str) -> str:
    text = formatting.setting_text(group, name, tuned=TUNED)
    said = name in ("dataset", "distill", "student", "teacher", "optimizer", "loss")
    return text if said else f"{formatting.heading(name)} {text}"


def learning_rates(groups: Sequence[Group], losses: Sequence[str]) -> Figure:
    """Top-1 on the test split, one panel for every optimizer with several rates."""
    members = _by(groups, lambda g: _optimizer(g.settings))
    panels = [
        Panel(_optimizer_title(key, members), _points(inside, "loss", "learning_rate"))
        for key, inside in members.items()
    ]
    return _draw(panels, losses, "learning rate")


def held_out_learning_rates(choices: Sequence[Row], losses: Sequence[str]) -> Figure:
    """Top-1 on held-out images, one panel for every optimizer.

    The chosen rates are ringed; a line stands at the default.
    """
    members = _by(choices, _optimizer)
    panels = []
    for key, inside in members.items():
        points = {c["loss"]: [_trial(c, **t) for t in c["tried"]] for c in inside}
        defaults = [c["default_learning_rate"] for c in inside]
        panels.append(Panel(_optimizer_title(key, members), points, defaults))
    return _draw(panels, losses, "learning rate", "held-out top-1 (%)")


def _trial(choice: Row, learning_rate: float, top1: float | None) -> Point:
    is_chosen = learning_rate == choice["learning_rate"]
    return Point(learning_rate, top1, None, top1 is None, is_chosen)


def _optimizer(settings: Mapping[str, Any]) -> tuple:
    return tuple(settings[n] for n in ("optimizer", "weight_decay", "schedule"))


def _optimizer_title(key: tuple, keys: Iterable[tuple]) -> str:
    return key[0] + style.where_several(key, list(keys), "weight decay")


def _by(items: Iterable[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    members = collections.defaultdict(list)
    for item in items:
        members[key(item)].append(item)
    return members


def _points(groups: Sequence[Group], line: str, place: str) -> dict[str, list[Point]]:
    """The points of groups; those over bytes have the number of views beside them."""
    points = collections.defaultdict(list)
    for g in groups:
        top1, at = g.summary("top1_last"), g.settings[place]
        note = str(g.settings["views"]) if place == BYTES else ""
        point = Point(at, top1.mean, top1.half_width or 0, bool(g.diverged), note=note)
        points[formatting.setting_text(g, line)].append(point)
    return points


@style.in_style
def _draw(
    panels: Sequence[Panel], labels: Sequence[str], xlabel: str,
    ylabel: str = style.ACCURACY, apart: bool = True,
) -> Figure:  # fmt: skip
    """Lines over a logarithmic axis, those of all labels in their colours."""
    shown = [label for label in labels if any(label in p.lines for p in panels)]
    figure, grid = style.new_panels(len(panels), columns=2, row=2, margin=0.4)
    for axes in grid[:, 0]:
        axes.set_ylabel(ylabel)
    for axes, panel in zip(grid.flat, panels, strict=False):
        axes.set_title(panel.title)
        axes.set_xscale("log")
        axes.set_xlabel(xlabel)
        axes.grid(True)
        for place in set(panel.marked):
            axes.axvline(place, color="#777777", linestyle=":", linewidth=1, zorder=0)
        for label, shift in side_by_side(shown, 1.04 if apart else 1.0):
            _draw_line(axes, panel.lines.get(label, ()), labels.index(label), shift)
        if not apart:
            axes.xaxis.set_minor_formatter(ticker.NullFormatter())
            axes.xaxis.set_major_formatter(lambda x, _: readable_size(x))
            continue
        places = sorted({p.place for points in panel.lines.values() for p in points})
        ticks = places[:: math.ceil(len(places) / _MOST_TICKS)]
        axes.set_xticks(ticks, [f"{place:g}" for place in ticks])
        axes.xaxis.set_minor_locator(ticker.NullLocator())
    style.add_legend(figure, shown, labels)
    return figure


def side_by_side(shown: Sequence[str], step: float = 1.04) -> list[tuple[str, float]]:
    """Labels with factors on a logarithmic axis, so that no interval hides another."""
    middle = (len(shown) - 1) / 2
    return [(label, step ** (place - middle)) for place, label in enumerate(shown)]


def _draw_line(axes: Axes, points: Sequence[Point], index: int, shift: float) -> None:
    """Means with intervals, and crosses where runs diverged."""
    shade = style.color(index)
    moved = [p._replace(place=p.place * shift) for p in points]
    drawn = sorted((p for p in moved if p.mean is not None), key=lambda p: p.place)
    widths = [p.half_width for p in drawn if p.half_width is not None]
    axes.errorbar(
        [p.place for p in drawn],
        np.asarray([p.mean for p in drawn], float),
        widths if len(widths) == len(drawn) else None,
        capsize=2,
        elinewidth=0.8,
        **style.line_style(index),
    )
    crosses = [p.place for p in moved if p.has_diverged]
    if crosses:  # matplotlib 3.10 lays out no figure with an unclipped empty line
        axes.plot(
            crosses, np.full(len(crosses), 0.03), "x", color=shade, markersize=5,
            transform=axes.get_xaxis_transform(), clip_on=False,
        )  # fmt: skip
    for p in drawn:
        if p.is_chosen:
            axes.plot(
                [p.place], np.asarray([p.mean], float), "o", markersize=8,
                markerfacecolor="none", markeredgecolor=shade, markeredgewidth=1.2,
            )  # fmt: skip
        if p.note:
            axes.annotate(
                p.note, (p.place, p.mean or 0), (3, -3), textcoords="offset points",
                va="top", fontsize=6, color=shade,
            )  # fmt: skip
