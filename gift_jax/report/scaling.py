"""Plots of accuracy over IPC, and over the bytes of the soft labels."""

import collections
from collections.abc import Iterable, Sequence

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gift_jax.pipeline.results import BLOCK, SETUP
from gift_jax.report.cells import HEADINGS, bytes_text, condition_text
from gift_jax.report.comparison import Comparison
from gift_jax.report.statistics import Group
from gift_jax.report.style import add_legend, color, in_style, side_by_side
from gift_jax.report.sweeps import draw_line, new_panels, set_ticks

# What may follow from the IPC, and is then no reason for another panel.
_FOLLOW_IPC = ("views", "epochs", "batch_size")

Panels = list[list[Comparison]]


def ipc_panels(comparisons: Sequence[Comparison]) -> Panels:
    """What differs in loss and IPC, in panels with several IPCs."""
    names = [n for n in (*BLOCK, *SETUP) if n != "ipc"]
    free = [n for n in names if n not in _FOLLOW_IPC]
    panels: Panels = []
    for members in _grouped(comparisons, free):
        places = {(c.loss, c.setting("ipc")) for c in members}
        panels += [members] if len(places) == len(members) else _grouped(members, names)
    return [p for p in panels if _several(c.setting("ipc") for c in p)]


def byte_panels(comparisons: Sequence[Comparison]) -> Panels:
    """What differs in views and format of the labels, in panels with several sizes."""
    stored = [c for c in comparisons if c.group.soft_label_bytes]
    names = [n for n in (*BLOCK, *SETUP, "loss") if n not in ("views", "label_format")]
    panels = _grouped(stored, names)
    return [p for p in panels if _several(c.group.soft_label_bytes for c in p)]


def _grouped(comparisons: Sequence[Comparison], names: Sequence[str]) -> Panels:
    panels = collections.defaultdict(list)
    for c in comparisons:
        panels[tuple(c.setting(name) for name in names)].append(c)
    return list(panels.values())


def _several(values: Iterable) -> bool:
    return len(set(values)) > 1


@in_style
def over_ipc(panels: Panels, losses: Sequence[str]) -> Figure:
    """Accuracy over images per class, a line a loss.

    Args:
      panels: As from `ipc_panels`.
      losses: All losses of the report, in the order of their colours.
    """
    ignored = ("ipc", *_FOLLOW_IPC)
    figure, grid = new_panels(_titles(panels, ignored), xlabel="images per class")
    here = {c.loss for members in panels for c in members}
    shown = [loss for loss in losses if loss in here]
    for axes, members in zip(grid, panels, strict=True):
        for loss, shift in side_by_side(shown):
            lines = [c for c in members if c.loss == loss]
            points = [(c.setting("ipc"), c.group) for c in lines]
            draw_line(axes, points, losses.index(loss), shift)
        set_ticks(axes, (c.setting("ipc") for c in members))
    add_legend(figure, shown, losses)
    return figure


@in_style
def over_bytes(panels: Panels) -> Figure:
    """Accuracy over the bytes of the soft labels, a line a format.

    Beside a point stands the number of views.

    Args:
      panels: As from `byte_panels`.
    """
    figure, grid = new_panels(
        _titles(panels, ("views", "label_format")), xlabel="soft labels on disk"
    )
    formats = list(
        dict.fromkeys(
            condition_text(c, "label_format") for members in panels for c in members
        )
    )
    for axes, members in zip(grid, panels, strict=True):
        for index, label_format in enumerate(formats):
            lines = [
                c for c in members if condition_text(c, "label_format") == label_format
            ]
            points = [(float(c.group.soft_label_bytes or 0), c.group) for c in lines]
            draw_line(axes, points, index, 1.0)
            for place, group in points:
                _name_views(axes, place, group, color(index))
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
        axes.xaxis.set_major_formatter(
            ticker.FuncFormatter(lambda value, _: bytes_text(value))
        )
    add_legend(figure, formats, formats)
    return figure


def _name_views(axes: Axes, place: float, group: Group, shade: str) -> None:
    mean = group.summary("top1_last").mean
    if mean is not None:
        axes.annotate(
            str(group.settings["views"]),
            (place, mean),
            (3, -3),
            textcoords="offset points",
            va="top",
            fontsize=6,
            color=shade,
        )


def _titles(panels: Panels, ignored: Sequence[str]) -> list[str]:
    """What tells panels apart."""
    names = [
        name
        for name in (*BLOCK, *SETUP, "loss")
        if name not in ignored and _several(c.setting(name) for p in panels for c in p)
    ]
    inside = [
        n for n in names if any(_several(c.setting(n) for c in p) for p in panels)
    ]
    names = [name for name in names if name not in inside]
    return [", ".join(_title_part(p[0], name) for name in names) for p in panels]


def _title_part(comparison: Comparison, name: str) -> str:
    text = condition_text(comparison, name)
    said = name in ("dataset", "distill", "student", "teacher", "optimizer", "loss")
    return text if said else f"{HEADINGS[name]} {text}"
