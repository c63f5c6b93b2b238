"""Lines: over epochs, learning rates, images per class, and bytes of soft labels.

`groups` are those of one benchmark unless it is said otherwise, `losses` all of the
report in the order of their colours.
"""

import collections
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gift_jax.pipeline.results import OPTIMIZER
from gift_jax.report import formatting, style
from gift_jax.report.groups import FIELDS, TUNED, Group, telling
from gift_jax.report.reading import Curve, RunKey, run_key
from gift_jax.report.statistics import Row

Curves = Mapping[RunKey, Curve]

# What may follow from the IPC, and is then no reason for another panel.
_FOLLOW_IPC = ("views", "epochs", "batch_size", "eval_every")
_ALONG_IPC = ("ipc", "distilled_fingerprint", "trained_on", "loss")
_ALONG_BYTES = ("views", "label_format", "trained_on")
_MOST_TICKS = 5


@style.in_style
def learning_curves(
    groups: Sequence[Group], curves: Curves, losses: Sequence[str]
) -> Figure:
    """Accuracy over epochs of runs with curves, one row of panels an optimizer."""
    labels = style.optimizer_labels(groups)
    figure = style.new_figure(0.5 + 1.6 * len(labels))
    grid = figure.subplots(len(labels), 2, sharex=True, sharey=True, squeeze=False)
    for row, (optimizer, label) in zip(grid, labels.items(), strict=True):
        row[0].set_ylabel(label)
        for g in (g for g in groups if g.of(OPTIMIZER) == optimizer):
            index, finished = losses.index(g.loss), of_runs(g.finished.values(), curves)
            _draw_mean(row[0], [c.train for c in finished], index)
            _draw_mean(row[1], [c.test for c in finished], index, marker=True)
            for curve in of_runs(g.diverged.values(), curves):
                _draw_diverged(row[0], curve.train, index)
        for axes in row:
            axes.grid(True)
    grid[0, 0].set_title("on the views that are trained on")
    grid[0, 1].set_title("on the test split")
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    figure.supylabel(style.ACCURACY, fontsize=8)
    _add_legend(figure, groups, losses)
    return figure


@style.in_style
def gradient_norms(
    groups: Sequence[Group], curves: Curves, losses: Sequence[str]
) -> Figure:
    """Norms over epochs of runs that have some, one panel an optimizer."""
    labels = style.optimizer_labels(groups)
    count = len(labels)
    figure, grid = style.new_panels(count, columns=2, row=1.7, margin=0.5, sharex=True)
    for axes, (optimizer, label) in zip(grid.flat, labels.items(), strict=False):
        axes.set_title(label.replace("\n", " "))
        axes.set_yscale("log")
        axes.grid(True)
        for g in (g for g in groups if g.of(OPTIMIZER) == optimizer):
            index = losses.index(g.loss)
            _draw_mean(
                axes,
                [_positive(c) for c in of_runs(g.finished.values(), curves)],
                index,
            )
            for curve in of_runs(g.diverged.values(), curves):
                _draw_diverged(axes, _positive(curve), index)
    for axes in grid.flat[max(count - grid.shape[1], 0) : count]:
        axes.set_xlabel("epoch")
        axes.tick_params(labelbottom=True)
    figure.supylabel("gradient norm", fontsize=8)
    _add_legend(figure, groups, losses, "lines")
    return figure


def of_runs(rows: Iterable[Row], curves: Curves) -> list[Curve]:
    """The curves of those runs that have one."""
    return [curves[run_key(row)] for row in rows if run_key(row) in curves]


def _positive(curve: Curve) -> np.ndarray:
    return curve.gradient[curve.gradient[:, 1] > 0]


def _add_legend(
    figure: Figure,
    groups: Sequence[Group],
    losses: Sequence[str],
    kind: str = "markers",
) -> None:
    here = {g.loss for g in groups}
    style.add_legend(figure, [loss for loss in losses if loss in here], losses, kind)


def _draw_mean(
    axes: Axes, curves: Sequence[np.ndarray], index: int, *, marker: bool = False
) -> None:
    epochs, low, mean, high = mean_curve(curves)
    axes.plot(epochs, mean, **style.line_style(index, marker=marker, size=3))
    shade = style.color(index)
    axes.fill_between(epochs, low, high, color=shade, alpha=0.18, linewidth=0)


def _draw_diverged(axes: Axes, curve: np.ndarray, index: int) -> None:
    """A run by itself, to where it ended."""
    axes.plot(*curve.T, ":", color=style.color(index), linewidth=0.9)
    axes.plot(*curve[-1:].T, "x", color=style.color(index), markersize=5)


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
    return np.asarray(common), stacked.min(1), stacked.mean(1), stacked.max(1)


class Point(NamedTuple):
    """A point of a line over a logarithmic axis; the half width of no interval is 0."""

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


def learning_rates(groups: Sequence[Group], losses: Sequence[str]) -> Figure:
    """Top-1 on the test split, one panel for every optimizer with several rates."""
    members = _by(groups, lambda g: _optimizer(g.settings))
    panels = [
        Panel(_optimizer_title(key, members), _lines(inside, "loss", "learning_rate"))
        for key, inside in members.items()
    ]
    return _draw(panels, losses, xlabel="learning rate")


def held_out_learning_rates(choices: Sequence[Row], losses: Sequence[str]) -> Figure:
    """Top-1 on held-out images, one panel for every optimizer.

    The chosen rates are ringed; a line stands at the default.
    """
    members = _by(choices, _optimizer)
    panels = []
    for key, inside in members.items():
        lines = {c["loss"]: [_trial_point(t, c) for t in c["tried"]] for c in inside}
        defaults = [c["default_learning_rate"] for c in inside]
        panels.append(Panel(_optimizer_title(key, members), lines, defaults))
    return _draw(panels, losses, xlabel="learning rate", ylabel="held-out top-1 (%)")


def _trial_point(trial: Row, choice: Row) -> Point:
    rate, top1 = trial["learning_rate"], trial["top1"]
    return Point(rate, top1, None, top1 is None, rate == choice["learning_rate"])


def ipc_panels(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups of all benchmarks that differ in loss and IPC, where IPCs are several."""
    return _panels(groups, ("loss", "ipc"), _ALONG_IPC, _FOLLOW_IPC)


def over_ipc(panels: Sequence[Sequence[Group]], losses: Sequence[str]) -> Figure:
    """Accuracy over images per class, a line a loss, in `ipc_panels`."""
    titles = _titles(panels, (*_ALONG_IPC, *_FOLLOW_IPC))
    drawn = [
        Panel(title, _lines(inside, "loss", "ipc"))
        for title, inside in zip(titles, panels, strict=True)
    ]
    return _draw(drawn, losses, xlabel="images per class")


def byte_panels(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups of all benchmarks that differ in views and format of stored labels."""
    stored = [g for g in groups if g.soft_label_bytes]
    return _panels(stored, ("label_format", "views"), _ALONG_BYTES)


def over_bytes(panels: Sequence[Sequence[Group]]) -> Figure:
    """Accuracy over the bytes of the soft labels, a line a format, in `byte_panels`.

    Beside a point stands the number of views.
    """
    drawn = [
        Panel(title, _lines(inside, "label_format", None))
        for title, inside in zip(_titles(panels, _ALONG_BYTES), panels, strict=True)
    ]
    formats = list(dict.fromkeys(label for panel in drawn for label in panel.lines))
    return _draw(drawn, formats, xlabel="soft labels on disk", places_are_bytes=True)


def _panels(
    groups: Sequence[Group],
    place: Sequence[str],
    along: Sequence[str],
    follow: Sequence[str] = (),
) -> list[list[Group]]:
    """Groups in panels that have one group in every place, and several places.

    Args:
      groups: All groups.
      place: The settings that say in which line and where in it a group stands.
      along: Those that may differ in a panel.
      follow: Those that may where there is one group in every place nevertheless.
    """

    def is_clear(members: Sequence[Group]) -> bool:
        return len({g.of(place) for g in members}) == len(members)

    fields = [name for name in FIELDS if name not in along]
    few = [name for name in fields if name not in follow]
    panels = []
    for members in _by(groups, lambda g: g.of(few)).values():
        apart = (
            [members]
            if is_clear(members)
            else _by(members, lambda g: g.of(fields)).values()
        )
        panels += [inside for inside in apart if is_clear(inside)]
    return [p for p in panels if len({g.setting(place[-1]) for g in p}) > 1]


def _by(items: Sequence[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    members = collections.defaultdict(list)
    for item in items:
        members[key(item)].append(item)
    return members


def _titles(panels: Sequence[Sequence[Group]], along: Sequence[str]) -> list[str]:
    """What tells panels apart, of what is the same in each."""
    same = [
        name
        for name in FIELDS
        if name not in along
        and all(len({g.setting(name) for g in p}) == 1 for p in panels)
    ]
    names = telling([p[0] for p in panels], same)
    return [", ".join(_title_part(p[0], name) for name in names) for p in panels]


def _title_part(group: Group, name: str) -> str:
    text = formatting.setting_text(group, name, tuned=TUNED)
    said = name in ("dataset", "distill", "student", "teacher", "optimizer", "loss")
    return text if said else f"{formatting.heading(name)} {text}"


def _optimizer(settings: Mapping[str, Any]) -> tuple:
    return tuple(settings[n] for n in ("optimizer", "weight_decay", "schedule"))


def _optimizer_title(key: tuple, keys: Iterable[tuple]) -> str:
    return key[0] + style.where_several(key, list(keys), "weight decay")


def _lines(
    groups: Sequence[Group], line: str, place: str | None
) -> dict[str, list[Point]]:
    """The points of groups, over a setting or over the bytes of their labels."""
    points = collections.defaultdict(list)
    for g in groups:
        top1 = g.summary("top1_last")
        at = g.settings[place] if place else float(g.soft_label_bytes or 0)
        note = "" if place else str(g.settings["views"])
        point = Point(at, top1.mean, top1.half_width or 0, bool(g.diverged), note=note)
        points[formatting.setting_text(g, line)].append(point)
    return points


@style.in_style
def _draw(
    panels: Sequence[Panel],
    labels: Sequence[str],
    *,
    xlabel: str,
    ylabel: str = style.ACCURACY,
    places_are_bytes: bool = False,
) -> Figure:
    """Lines over a logarithmic axis, those of all labels in their colours."""
    shown = [label for label in labels if any(label in p.lines for p in panels)]
    figure, grid = style.new_panels(
        len(panels), columns=2, row=2, margin=0.4, sharex=False
    )
    for axes in grid[:, 0]:
        axes.set_ylabel(ylabel)
    for axes, panel in zip(grid.flat, panels, strict=False):
        axes.set_title(panel.title)
        axes.set_xscale("log")
        axes.set_xlabel(xlabel)
        axes.grid(True)
        for place in set(panel.marked):
            axes.axvline(place, color="#777777", linestyle=":", linewidth=1, zorder=0)
        for label, shift in side_by_side(shown, 1.0 if places_are_bytes else 1.04):
            _draw_line(axes, panel.lines.get(label, ()), labels.index(label), shift)
        if places_are_bytes:
            axes.xaxis.set_minor_formatter(ticker.NullFormatter())
            axes.xaxis.set_major_formatter(
                lambda value, _: formatting.bytes_text(value)
            )
            continue
        places = sorted({p.place for points in panel.lines.values() for p in points})
        ticks = places[:: math.ceil(len(places) / _MOST_TICKS)]
        axes.set_xticks(ticks, [f"{place:g}" for place in ticks])
        axes.xaxis.set_minor_locator(ticker.NullLocator())
    style.add_legend(figure, shown, labels)
    return figure


def side_by_side(shown: Sequence[str], step: float = 1.04) -> list[tuple[str, float]]:
    """Labels with factors of a logarithmic axis, or intervals hide one another."""
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
