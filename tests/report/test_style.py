"""Tests of `gift_jax.report.style`: what plots have in common."""

import matplotlib
import pytest

from gift_jax.report import style
from tests.report.rows import KL, RATES, choices, compared, rows


def test_the_style_is_left_behind():
    before = dict(matplotlib.rcParams)

    @style.in_style
    def draw(height):
        assert matplotlib.rcParams["font.size"] == 8
        return style.new_figure(height)

    assert draw(2.0).get_size_inches().tolist() == [style.WIDTH, 2.0]
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("count", "shape", "height"), [(1, (1, 1), 3), (2, (1, 2), 3), (3, (2, 2), 5)]
)
def test_panels_that_are_left_over_are_off(count, shape, height):
    figure, grid = style.new_panels(count, columns=2, row=2, margin=1, sharex=True)
    assert grid.shape == shape
    assert figure.get_size_inches()[1] == height
    assert [axes.axison for axes in grid.flat] == [
        place < count for place in range(grid.size)
    ]


def test_all_losses_look_different():
    looks = [tuple(style.line_style(index).values()) for index in range(28)]
    assert len(set(looks)) == 28


def test_optimizers_are_named_by_what_tells_them_apart():
    all_rows = [
        *rows("kl", KL),
        *rows("kl", KL, optimizer="sgd", weight_decay=0.0),
        *rows("kl", KL, optimizer="sgd", weight_decay=0.1),
        *rows("kl", KL, learning_rate=RATES[0]),
    ]
    labels = style.optimizer_labels(compared(all_rows, "kl", choices(kl=RATES[0])))
    assert list(labels.values()) == [
        "adamw\n0.001 (default)",
        "adamw\ntuned",
        "sgd\n0.001, wd 0",
        "sgd\n0.001, wd 0.1",
    ]


@pytest.mark.parametrize(("length", "most"), [(3, 5), (20, 3), (60, 1)])
def test_a_legend_is_no_wider_than_the_figure(length, most):
    names = [(f"{i}" + "gamma=0.1 " * length)[:length] for i in range(5)]

    @style.in_style
    def draw():
        figure = style.new_figure(2.0)
        style.add_legend(figure, names, names)
        figure.draw_without_rendering()
        return figure

    figure = draw()
    (legend,) = figure.legends
    assert legend.get_window_extent().width <= figure.bbox.width
    assert legend._ncols == most
