"""The look of all plots.

Figures are 5.5 inches wide, the text width of ICLR, and 1320 pixels. Colours are
those of Okabe and Ito, which the colour-blind can tell apart; every loss has a
marker too.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gift_jax.report.cells import condition_text, format_setting
from gift_jax.report.comparison import Comparison
from gift_jax.report.tables import rank

WIDTH = 5.5
DPI = 240

# https://jfly.uni-koeln.de/color/; without yellow, which is faint on white.
_COLORS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#000000",
)
_MARKERS = "osD^vPX*"
# Beyond seven losses the colours come again, with another hatch or line.
_HATCHES = ("", "////", "....", "xxxx")
_LINES = ("-", "--", "-.", ":")
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.grid.axis": "y",
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "hatch.linewidth": 0.5,
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
}
ACCURACY = "top-1 accuracy (%)"


def in_style(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draws with this module's style and leaves matplotlib's as it was."""

    @functools.wraps(draw)
    def styled(*args: Any, **options: Any) -> Figure:
        with matplotlib.rc_context(_STYLE):
            return draw(*args, **options)

    return styled


def new_figure(height: float) -> Figure:
    """An empty figure of the common width; it draws with Agg, to no screen."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def setup_labels(comparisons: Sequence[Comparison]) -> dict[tuple, str]:
    """What setups are called in a plot: by optimizer and learning rate.

    Weight decay and schedule are named where an optimizer has several.
    """
    first = {c.setup: c for c in reversed(comparisons)}
    optimizers = list(dict.fromkeys(c.setting("optimizer") for c in comparisons))
    ordered = sorted(
        first.values(),
        key=lambda c: (optimizers.index(c.setup[0]), *map(rank, c.setup[1:])),
    )
    labels = {}
    for c in ordered:
        optimizer, _, decay, schedule = c.setup
        label = f"{optimizer}\n{condition_text(c, 'learning_rate')}"
        others = [setup for setup in first if setup[0] == optimizer]
        if len({setup[2] for setup in others}) > 1:
            label += f", wd {format_setting(decay)}"
        if len({setup[3] for setup in others}) > 1:
            label += f", {format_setting(schedule)}"
        labels[c.setup] = label
    return labels


def color(index: int) -> str:
    """The colour of the loss of that number."""
    return _COLORS[index % len(_COLORS)]


def hatch_style(index: int) -> str:
    """The hatch of the loss of that number."""
    return _HATCHES[index // len(_COLORS) % len(_HATCHES)]


def marker_style(index: int) -> str:
    """The marker of the loss of that number."""
    return _MARKERS[index % len(_MARKERS)]


def line_style(index: int) -> Any:
    """The line of the loss of that number."""
    return _LINES[index // len(_COLORS) % len(_LINES)]


def side_by_side(shown: Sequence[str]) -> list[tuple[str, float]]:
    """Losses with factors of a logarithmic axis, or intervals hide one another."""
    middle = (len(shown) - 1) / 2
    return [(loss, 1.04 ** (place - middle)) for place, loss in enumerate(shown)]


def add_legend(
    figure: Figure,
    shown: Sequence[str],
    losses: Sequence[str],
    *,
    patches: bool = False,
    markers: bool = True,
) -> None:
    """Names the losses above the panels, beside patches or lines."""
    handles: list[Any] = []
    for loss in shown:
        index = losses.index(loss)
        if patches:
            hatch = hatch_style(index)
            handle: Any = Patch(
                facecolor=color(index), hatch=hatch, edgecolor="white", linewidth=0
            )
        else:
            handle = Line2D(
                [], [], color=color(index), linestyle=line_style(index),
                marker=marker_style(index) if markers else "", markersize=3.5,
            )  # fmt: skip
        handles.append(handle)
    figure.legend(
        handles, shown, loc="outside upper center", ncols=_legend_columns(shown)
    )


def _legend_columns(labels: Sequence[str]) -> int:
    """The most columns, up to five, that are no wider than a figure together."""
    for columns in range(min(len(labels), 5), 1, -1):
        rows = -(-len(labels) // columns)
        longest = [
            max(map(len, labels[i : i + rows])) for i in range(0, len(labels), rows)
        ]
        # In inches: a letter of 7 points, and the line or patch beside it.
        if sum(0.055 * length + 0.5 for length in longest) <= WIDTH:
            return columns
    return 1
