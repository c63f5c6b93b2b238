"""Tests of what the report draws over IPC, soft-label bytes and epochs."""

import itertools
import pathlib

import numpy as np
import pytest
from test_report_statistics import GIFT, KL, rows

from gift_jax.report import (
    comparison,
    curves,
    figures,
    plots,
    reading,
    scaling,
    statistics,
)

SIZES = {1: (10, 1000), 10: (50, 300), 50: (50, 300)}  # batch size and epochs
WORKDIR = pathlib.Path("work")


def compared(all_rows):
    placed = [{**one, "workdir": WORKDIR} for one in all_rows]
    return comparison.compare(statistics.group_rows(placed), "kl")


def at_all_sizes(loss, accuracies, **fields):
    return [
        one
        for ipc, (batch_size, epochs) in SIZES.items()
        for one in rows(
            loss,
            [accuracy + ipc / 10 for accuracy in accuracies],
            ipc=ipc,
            batch_size=batch_size,
            epochs=epochs,
            views=epochs,
            **fields,
        )
    ]


@pytest.fixture
def scale():
    return compared(
        [
            *at_all_sizes("kl", KL),
            *at_all_sizes("gift", GIFT),
            *at_all_sizes("kl", KL, dataset="cifar10"),
        ]
    )


@pytest.fixture
def budget():
    return compared(
        [
            one
            for loss in ("kl", "gift")
            for views in (1, 10, 40)
            for label_format, size in (("float16", 20), ("top2", 6))
            for one in rows(
                loss,
                KL,
                views=views,
                label_format=label_format,
                soft_label_bytes=views * size,
            )
        ]
    )


def drawn_lines(axes):
    """The points of lines with intervals."""
    return [container.lines[0].get_xydata() for container in axes.containers]


def test_what_follows_from_the_ipc_makes_no_panel_of_its_own(scale):
    panels = scaling.ipc_panels(scale)
    assert [len(panel) for panel in panels] == [6, 3]
    figure = scaling.over_ipc(panels, ["kl", "gift"])
    assert [axes.get_title() for axes in figure.axes] == ["digits", "cifar10"]
    ticks = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert ticks == ["1", "10", "50"]
    means = [np.mean(KL) + ipc / 10 for ipc in SIZES]
    np.testing.assert_allclose(drawn_lines(figure.axes[0])[0][:, 1], means)


def test_other_epochs_at_one_ipc_do_make_a_panel():
    other = at_all_sizes("kl", GIFT)
    other = [{**one, "epochs": 7, "run_id": one["run_id"] + "_7"} for one in other]
    panels = scaling.ipc_panels(compared(at_all_sizes("kl", KL) + other))
    # One IPC has other views than the two that can be told to belong together.
    assert [[c.setting("ipc") for c in panel] for panel in panels] == [[10, 50]] * 2
    assert scaling.ipc_panels(compared(rows("kl", KL))) == []


def test_bytes_have_a_panel_a_loss_and_a_line_a_format(budget):
    panels = scaling.byte_panels(budget)
    figure = scaling.over_bytes(panels)
    assert [axes.get_title() for axes in figure.axes] == ["kl", "gift"]
    for axes in figure.axes:
        places = [line[:, 0].tolist() for line in drawn_lines(axes)]
        assert places == [[20, 200, 800], [6, 60, 240]]
        assert [text.get_text() for text in axes.texts] == ["1", "10", "40"] * 2


def test_rows_without_sizes_have_no_panel():
    assert scaling.byte_panels(compared(rows("kl", KL) + rows("kl", KL, views=1))) == []


@pytest.mark.parametrize("study", ["scale", "budget"])
def test_blocks_that_are_points_have_no_figures_of_their_own(study, request):
    comparisons = request.getfixturevalue(study)
    names = [f.name for f in figures.make_figures(comparisons, ["kl", "gift"], [], {})]
    assert names == [{"scale": "ipc", "budget": "soft_label_bytes"}[study]]


def test_many_losses_have_their_names_beside_the_bars():
    losses = ["kl", *(f"gift-gamma={i / 10}" for i in range(14))]
    figure = plots.bars(compared([r for x in losses for r in rows(x, KL)]), losses)
    (axes,) = figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == losses
    figure.draw_without_rendering()
    boxes = [tick.get_window_extent() for tick in axes.get_yticklabels()]
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))
    assert min(box.x0 for box in boxes) >= 0
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], np.mean(KL))


def test_gradient_norms_are_drawn_on_a_logarithmic_axis():
    comparisons = compared(rows("kl", KL[:2]))
    keys = [reading.run_key(run) for run in comparisons[0].group.rows]
    accuracies = np.array([[1, 10.0], [2, 20.0]])
    norms = [np.array([[1, 4.0], [2, 0.5]]), np.array([[1, 2.0], [2, 0.0]])]
    runs = {
        key: reading.Curve(accuracies, accuracies, norm)
        for key, norm in zip(keys, norms, strict=True)
    }
    (axes,) = curves.gradient_norms(comparisons, runs, ["kl"]).axes
    assert axes.get_yscale() == "log"
    # Where a norm is zero there is no point.
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[1, 3.0]])
