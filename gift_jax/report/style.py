"""The look of all plots.

Figures are 5.5 inches wide, the text width of ICLR, and 1320 pixels. Colours are
those of Okabe and Ito, which the colour-blind can tell apart; every loss has a
marker too. Losses are identified by their number among all of the report.
"""

import functools
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gift_jax.pipeline.results import OPTIMIZER
from gift_jax.report.formatting import setting_text, value_text
from gift_jax.report.groups import TUNED, Group, rank

WIDTH, DPI = 5.5, 240
ACCURACY = "top-1 accuracy (%)"

# https://jfly.uni-koeln.de/color/; without yellow, which is faint on white.
_COLORS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000"]
_MARKERS = "osD^vPX*"
# Beyond seven losses the colours come again, with another line.
_LINES = ("-", "--", "-.", ":")
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 8,
    **dict.fromkeys(("axes.titlesize", "axes.labelsize"), 8),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 7),
    "legend.frameon": False,
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    "axes.axisbelow": True,
    "axes.grid.axis": "y",
    "grid.color": "#dddddd",
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    **dict.fromkeys(("figure.dpi", "savefig.dpi"), DPI),
}


class ShownFigure(Figure):
    """A figure that a notebook shows, also where pyplot was never imported."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=DPI / 2)
        return stream.getvalue()


def png(figure: Figure) -> bytes:
    """A figure as a file, the same bytes for the same drawing.

    It has no version of matplotlib in it, so that a newer one changes no file.
    """
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return stream.getvalue()


def in_style(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draws with this module's style and leaves matplotlib's as it was."""

    @functools.wraps(draw)
    def styled(*args: Any, **options: Any) -> Figure:
        with matplotlib.rc_context(_STYLE):
            return draw(*args, **options)

    return styled


def new_figure(height: float) -> Figure:
    """An empty figure of the common width; it draws with Agg, to no screen."""
    return ShownFigure(figsize=(WIDTH, height), layout="constrained")


def new_panels(
    count: int,
    *,
    columns: int,
    row: float,
    margin: float,
    sharex: bool = False,
    sharey: bool = True,
) -> tuple[Figure, np.ndarray]:
    """A figure of panels; heights are in inches.

    Returns:
      The figure, and (rows, columns) axes; those that are left over are off.
    """
    columns = min(count, columns)
    rows = math.ceil(count / columns)
    figure = new_figure(margin + row * rows)
    grid = figure.subplots(rows, columns, sharex=sharex, sharey=sharey, squeeze=False)
    for axes in grid.flat[count:]:
        axes.set_axis_off()
    return figure, grid


def optimizer_labels(groups: Sequence[Group]) -> dict[tuple, str]:
    """Labels of optimizers in a plot, in order: name and learning rate."""
    first = {g.of(OPTIMIZER): g for g in reversed(groups)}
    names = list(dict.fromkeys(g.setting("optimizer") for g in groups))
    keys = sorted(first, key=lambda key: (names.index(key[0]), *map(rank, key[1:])))
    return {
        key: f"{key[0]}\n{setting_text(first[key], 'learning_rate', tuned=TUNED)}"
        + where_several(key, keys, "wd")
        for key in keys
    }


def where_several(key: tuple, keys: Sequence[tuple], weight_decay: str) -> str:
    """Weight decay and schedule, the last of a key, where an optimizer has several."""
    text = ""
    for place, called in ((-2, f"{weight_decay} "), (-1, "")):
        if len({other[place] for other in keys if other[0] == key[0]}) > 1:
            text += f", {called}{value_text(key[place])}"
    return text


def color(index: int) -> str:
    """The colour of a loss."""
    return _COLORS[index % len(_COLORS)]


def line_style(index: int, *, size: float = 3.5) -> dict[str, Any]:
    """The line of a loss."""
    return {
        "color": color(index),
        "linestyle": _LINES[index // len(_COLORS) % len(_LINES)],
        "marker": _MARKERS[index % len(_MARKERS)],
        "markersize": size,
    }


def label_epochs(grid: np.ndarray, count: int) -> None:
    """Labels the lowest axes of `count` panels over epochs."""
    for axes in grid.flat[max(count - grid.shape[1], 0) : count]:
        axes.set_xlabel("epoch")
        axes.tick_params(labelbottom=True)


def add_legend(figure: Figure, shown: Sequence[str], losses: Sequence[str]) -> None:
    """Names the losses above the panels, beside their lines."""
    handles = [Line2D([], [], **line_style(losses.index(name))) for name in shown]
    figure.legend(
        handles, shown, loc="outside upper center", ncols=_legend_columns(shown)
    )


def _legend_columns(labels: Sequence[str]) -> int:
    """The most columns, up to five, that are no wider than a figure together."""
    for columns in range(min(len(labels), 5), 1, -1):
        longest = (max(map(len, part)) for part in np.array_split(labels, columns))
        # In inches: a letter of 7 points, and the line beside it.
        if sum(0.055 * length + 0.5 for length in longest) <= WIDTH:
            return columns
    return 1
