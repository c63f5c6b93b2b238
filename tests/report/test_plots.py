"""Tests of `gift_jax.report.plots`: bars, differences and pictures."""

import itertools

import numpy as np
import pytest

from gift_jax.report import examples, plots, statistics
from tests.report.rows import GIFT, KL, RATES, choices, compared, row, rows


def ticks(axis):
    return [tick.get_text() for tick in axis.get_ticklabels()]


def drawn_intervals(container):
    """(low, high) of every error bar."""
    (bars,) = container.lines[2]
    return [segment[:, 0] for segment in bars.get_segments()]


def test_bars_are_as_long_as_the_means():
    all_groups = compared(
        rows("kl", KL) + rows("gift", GIFT) + rows("kl", GIFT, optimizer="sgd")
    )
    adamw, sgd = plots.bars(all_groups, ["kl", "gift"]).axes
    lengths = [[bar.get_width() for bar in axes.patches] for axes in (adamw, sgd)]
    np.testing.assert_allclose(lengths[0], [np.mean(KL), np.mean(GIFT)])
    np.testing.assert_allclose(lengths[1], [np.mean(GIFT)])
    assert [axes.get_title() for axes in (adamw, sgd)] == ["adamw 0.001", "sgd 0.001"]
    assert ticks(adamw.yaxis) == ["kl", "gift"]
    intervals = [drawn_intervals(c) for c in adamw.containers if hasattr(c, "has_xerr")]
    expected = [[statistics.summarize(values).interval] for values in (KL, GIFT)]
    np.testing.assert_allclose(intervals, expected)
    points = [line for line in adamw.lines if line.get_marker() == "o"]
    np.testing.assert_array_equal(points[0].get_xdata(), KL)


def test_kinds_of_rate_have_panels_of_their_own():
    tuned = rows("kl", GIFT, learning_rate=RATES[0])
    all_groups = compared(rows("kl", KL) + tuned, "kl", choices(kl=RATES[0]))
    titles = [axes.get_title() for axes in plots.bars(all_groups, ["kl"]).axes]
    assert titles == ["adamw 0.001 (default)", "adamw tuned"]


@pytest.mark.parametrize("count", [1, 8])
def test_what_diverged_is_written_at_its_place(count):
    losses = [f"loss{i}" for i in range(count)]
    broken = row("loss0", 9, None, status="diverged")
    all_groups = compared([*(r for x in losses for r in rows(x, KL)), broken], "loss0")
    (axes,) = plots.bars(all_groups, losses).axes
    assert [text.get_text() for text in axes.texts] == ["1/5 diverged"]


def test_the_names_of_many_losses_are_all_to_be_read():
    losses = ["kl", *(f"gift-gamma={i / 10}" for i in range(14))]
    figure = plots.bars(compared([r for x in losses for r in rows(x, KL)]), losses)
    (axes,) = figure.axes
    assert ticks(axes.yaxis) == losses
    figure.draw_without_rendering()
    boxes = [tick.get_window_extent() for tick in axes.get_yticklabels()]
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))
    assert min(box.x0 for box in boxes) >= 0
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], np.mean(KL))


def test_differences_are_filled_where_the_interval_excludes_zero():
    all_groups = compared(
        rows("kl", KL)
        + rows("gift", GIFT)
        + rows("mse", [53.0, 54.0, 54.5, 47.0])
        + rows("kl", KL, optimizer="sgd")
        + rows("gift", GIFT, optimizer="sgd")
    )
    shown = [g for g in all_groups if not g.is_baseline]
    (axes,) = plots.differences(shown, ["kl", "gift", "mse"]).axes
    assert ticks(axes.yaxis) == [
        "adamw 0.001  gift",
        "adamw 0.001  mse",
        "sgd 0.001  gift",
    ]
    points = [container.lines[0] for container in axes.containers]
    expected = [g.difference.mean for g in shown]
    np.testing.assert_allclose([p.get_xdata()[0] for p in points], expected)
    assert [p.get_ydata()[0] for p in points] == [0, 1, 2.5]
    (interval,) = drawn_intervals(axes.containers[0])
    of_gift = statistics.summarize(np.subtract(GIFT, KL))
    np.testing.assert_allclose(interval, of_gift.interval)
    assert [p.get_markerfacecolor() == "white" for p in points] == [False, True, False]
    assert "difference to kl" in axes.get_xlabel()


def test_pictures_stand_above_their_views_and_soft_labels():
    images = np.linspace(0, 1, 2 * 4 * 4 * 3).reshape(2, 4, 4, 3)
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    shown = examples.Examples("x", images, np.array([0, 1]), images / 2, probabilities)
    grid = np.reshape(plots.images(shown).axes, (3, 2))
    np.testing.assert_array_equal(grid[0, 1].images[0].get_array(), images[1])
    np.testing.assert_array_equal(grid[1, 1].images[0].get_array(), images[1] / 2)
    assert [axes.get_title() for axes in grid[0]] == ["class 0", "class 1"]
    bars = grid[2, 1].patches
    np.testing.assert_allclose([bar.get_width() for bar in bars], [0.6, 0.3, 0.1])
    assert ticks(grid[2, 1].yaxis) == ["2", "1", "0"]
    # That of the hard label, and no other, is in colour.
    assert bars[0].get_facecolor() == bars[2].get_facecolor() != bars[1].get_facecolor()


def test_pictures_of_one_channel_are_grey():
    shown = examples.Examples("x", np.ones((1, 4, 4, 1)), np.array([0]))
    (axes,) = plots.images(shown).axes
    assert axes.images[0].get_array().shape == (4, 4)
    assert axes.images[0].get_cmap().name == "gray"
