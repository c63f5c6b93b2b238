"""The figure of distilled images with their soft labels."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gift_jax.report.examples import Examples
from gift_jax.report.style import in_style, new_figure

_CLASSES_SHOWN = 5
_HARD_LABEL, _OTHER = "#D55E00", "#8a8a8a"


@in_style
def examples(shown: Examples) -> Figure:
    """Images, view 0 of them, and its most probable classes.

    The class of the hard label is drawn in another colour.
    """
    rows: list[str] = ["image"]
    rows += ["view 0"] * (shown.views is not None)
    rows += ["soft label"] * (shown.probabilities is not None)
    heights = [1.25 if row == "soft label" else 1.0 for row in rows]
    figure = new_figure(0.25 + 0.9 * sum(heights))
    grid = figure.subplots(
        len(rows), len(shown.images), squeeze=False, height_ratios=heights
    )
    for column in range(len(shown.images)):
        for axes, row in zip(grid[:, column], rows, strict=True):
            if row == "image":
                _picture(axes, shown.images[column])
                axes.set_title(f"class {shown.labels[column]}")
            elif row == "view 0" and shown.views is not None:
                _picture(axes, shown.views[column])
            elif shown.probabilities is not None:
                _bars(axes, shown.probabilities[column], int(shown.labels[column]))
    for axes, row in zip(grid[:, 0], rows, strict=True):
        axes.set_ylabel(row if row != "soft label" else "class")
    if shown.probabilities is not None:
        figure.supxlabel("probability in the soft label", fontsize=8)
    return figure


def _picture(axes: Axes, image: np.ndarray) -> None:
    is_grey = image.shape[-1] == 1
    axes.imshow(
        image[..., 0] if is_grey else image,
        cmap="gray" if is_grey else None,
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _bars(axes: Axes, probabilities: np.ndarray, label: int) -> None:
    """The most probable classes, from the top."""
    classes = np.argsort(-probabilities, kind="stable")[:_CLASSES_SHOWN]
    colors = [_HARD_LABEL if c == label else _OTHER for c in classes]
    places = range(len(classes))
    axes.barh(places, probabilities[classes], 0.7, color=colors)
    for place, probability in zip(places, probabilities[classes], strict=True):
        inside = probability > 0.55
        axes.text(
            probability - 0.03 if inside else probability + 0.03,
            place,
            f"{probability:.2f}",
            ha="right" if inside else "left",
            va="center",
            fontsize=6,
            color="white" if inside else "black",
        )
    axes.set_yticks(places, [str(c) for c in classes])
    axes.tick_params(axis="y", length=0, pad=2)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 1], ["0", "1"])
