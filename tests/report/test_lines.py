"""Tests of `gift_jax.report.lines`: what is drawn over epochs, rates, IPC and bytes."""

import numpy as np
import pytest

from gift_jax.report import lines, reading, statistics
from tests.report.rows import (
    DEFAULT_RATE,
    GIFT,
    KL,
    RATES,
    choices,
    compared,
    row,
    rows,
)

SIZES = {1: (10, 1000), 10: (50, 300), 50: (50, 300)}  # batch size and epochs


def at_all_sizes(loss, accuracies, **fields):
    """Rows as of jobs: what a student is trained on is other for every IPC."""
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
            eval_every=epochs // 4,
            trained_on=f"a{ipc}",
            distilled_fingerprint=f"b{ipc}",
            **fields,
        )
    ]


@pytest.fixture
def scale():
    """Two datasets, and a baseline on the second one only."""
    other = {"dataset": "cifar10", "dataset_fingerprint": "c1"}
    return compared(
        [
            *at_all_sizes("kl", KL),
            *at_all_sizes("gift", GIFT),
            *at_all_sizes("kl", KL, **other),
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
                protocol_changes=f"relabel.views={views}",
                trained_on=f"{views}{label_format}",
                soft_label_bytes=views * size,
            )
        ]
    )


def ipc_panels(all_groups):
    return lines.panels_of(all_groups, lines.OVER_IPC)


def drawn_lines(axes):
    """The points of lines with intervals."""
    return [container.lines[0].get_xydata() for container in axes.containers]


def test_curves_are_averaged_where_all_have_a_point():
    short = np.array([[1, 10.0], [2, 20.0]])
    long = np.array([[1, 30.0], [2, 60.0], [3, 90.0]])
    epochs, low, mean, high = lines.mean_curve([short, long])
    np.testing.assert_array_equal(epochs, [1, 2])
    np.testing.assert_array_equal(low, [10, 20])
    np.testing.assert_array_equal(mean, [20, 40])
    np.testing.assert_array_equal(high, [30, 60])
    assert [len(part) for part in lines.mean_curve([])] == [0, 0, 0, 0]
    assert [len(part) for part in lines.mean_curve([short, long[2:]])] == [0] * 4


def curves_of(all_rows, gradients):
    accuracies = np.array([[1, 10.0], [2, 20.0]])
    return {
        reading.run_key(one): reading.Curve(accuracies, accuracies[1:], norms)
        for one, norms in zip(all_rows, gradients, strict=True)
    }


def test_learning_curves_are_means_and_diverged_runs_end_in_a_cross():
    all_rows = [*rows("kl", KL[:2]), row("kl", 2, None, status="diverged")]
    curves = curves_of(all_rows, [np.empty((0, 2))] * 3)
    train, test = lines.learning_curves(compared(all_rows), curves, ["kl"]).axes
    np.testing.assert_allclose(train.lines[0].get_xydata(), [[1, 10], [2, 20]])
    assert [line.get_linestyle() for line in train.lines[1:]] == [":", "None"]
    np.testing.assert_allclose(train.lines[2].get_xydata(), [[2, 20]])
    np.testing.assert_allclose(test.lines[0].get_xydata(), [[2, 20]])
    assert len(test.lines) == 1


def test_gradient_norms_are_drawn_on_a_logarithmic_axis():
    all_rows = rows("kl", KL[:2])
    norms = [np.array([[1, 4.0], [2, 0.5]]), np.array([[1, 2.0], [2, 0.0]])]
    curves = curves_of(all_rows, norms)
    (axes,) = lines.gradient_norms(compared(all_rows), curves, ["kl"]).axes
    assert axes.get_yscale() == "log"
    # Where a norm is zero there is no point.
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[1, 3.0]])


def test_a_diverged_run_without_a_positive_norm_draws_nothing():
    all_rows = [row("kl", 0, None, status="diverged")]
    curves = curves_of(all_rows, [np.array([[1, 0.0]])])
    figure = lines.gradient_norms(compared(all_rows), curves, ["kl"])
    figure.draw_without_rendering()
    assert all(line.get_xydata().size == 0 for line in figure.axes[0].lines)


def test_learning_rates_have_a_panel_an_optimizer():
    all_groups = compared(
        [
            one
            for optimizer in ("sgd", "adamw")
            for rate in RATES
            for loss in ("kl", "gift")
            for one in rows(loss, KL, optimizer=optimizer, learning_rate=rate)
        ]
    )
    figure = lines.learning_rates(all_groups, ["kl", "gift"])
    assert [axes.get_title() for axes in figure.axes] == ["sgd", "adamw"]
    for axes in figure.axes:
        for line, (_, shift) in zip(
            drawn_lines(axes), lines.side_by_side(["kl", "gift"]), strict=True
        ):
            np.testing.assert_allclose(line[:, 0], np.multiply(RATES, shift))
            np.testing.assert_allclose(line[:, 1], np.mean(KL))


def test_the_plot_rings_what_was_chosen_and_crosses_what_diverged():
    chosen = choices(kl=RATES[2], gift=DEFAULT_RATE)
    figure = lines.held_out_learning_rates(chosen, ["kl", "gift"])
    (axes,) = figure.axes
    shifts = dict(lines.side_by_side(["kl", "gift"]))
    rings = [r.get_xdata() for r in axes.lines if r.get_markerfacecolor() == "none"]
    expected = [[RATES[2] * shifts["kl"]], [DEFAULT_RATE * shifts["gift"]]]
    np.testing.assert_allclose(rings, expected)
    crosses = [cross.get_xdata() for cross in axes.lines if cross.get_marker() == "x"]
    np.testing.assert_allclose(
        crosses, [[RATES[-1] * shift] for shift in shifts.values()]
    )
    default = [one.get_xdata() for one in axes.lines if one.get_linestyle() == ":"]
    np.testing.assert_allclose(default, [[DEFAULT_RATE, DEFAULT_RATE]])


def test_what_follows_from_the_ipc_makes_no_panel_of_its_own(scale):
    panels = ipc_panels(scale)
    assert [len(panel) for panel in panels] == [6, 3]
    figure = lines.over_setting(panels, lines.OVER_IPC, ["kl", "gift"])
    assert [axes.get_title() for axes in figure.axes] == ["digits", "cifar10"]
    ticks = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert ticks == ["1", "10", "50"]
    means = [np.mean(KL) + ipc / 10 for ipc in SIZES]
    np.testing.assert_allclose(drawn_lines(figure.axes[0])[0][:, 1], means)
    (bars,) = figure.axes[0].containers[0].lines[2]
    low, high = statistics.summarize(KL).interval
    np.testing.assert_allclose(
        [segment[:, 1] for segment in bars.get_segments()],
        [(low + ipc / 10, high + ipc / 10) for ipc in SIZES],
    )


def test_other_epochs_at_one_ipc_do_make_a_panel():
    other = at_all_sizes("kl", GIFT)
    other = [{**one, "epochs": 7, "run_id": one["run_id"] + "_7"} for one in other]
    panels = ipc_panels(compared(at_all_sizes("kl", KL) + other))
    # One IPC has other views than the two that can be told to belong together.
    assert [[g.setting("ipc") for g in panel] for panel in panels] == [[10, 50]] * 2
    assert ipc_panels(compared(rows("kl", KL))) == []


@pytest.mark.parametrize(
    "differing",
    [
        {"data_seed": 1, "trained_on": "f0"},
        {"teacher_fingerprint": "f1", "trained_on": "f1"},
        {"dataset_fingerprint": "f2"},
        {"init_from": "f3"},
    ],
    ids=str,
)
def test_a_line_over_ipc_joins_nothing_of_other_teachers_or_seeds(differing):
    # Of two jobs, each with one IPC that the other has not.
    of_one = [r for r in at_all_sizes("kl", KL) if r["ipc"] != 50]
    of_other = [r for r in at_all_sizes("kl", GIFT) if r["ipc"] != 1]
    panels = ipc_panels(compared(of_one + [{**r, **differing} for r in of_other]))
    assert [[g.setting("ipc") for g in panel] for panel in panels] == [
        [1, 10],
        [10, 50],
    ]


def test_two_groups_in_one_place_have_no_line():
    # What differs has no other name than the fingerprint of all that it is.
    other = [{**r, "trained_on": "f0"} for r in at_all_sizes("kl", GIFT)]
    assert ipc_panels(compared(at_all_sizes("kl", KL) + other)) == []


def test_bytes_have_a_panel_a_loss_and_a_line_a_format(budget):
    panels = lines.panels_of(budget, lines.OVER_BYTES)
    figure = lines.over_setting(panels, lines.OVER_BYTES, ["kl", "gift"])
    assert [axes.get_title() for axes in figure.axes] == ["kl", "gift"]
    for axes in figure.axes:
        places = [line[:, 0].tolist() for line in drawn_lines(axes)]
        assert places == [[20, 200, 800], [6, 60, 240]]
        assert [text.get_text() for text in axes.texts] == ["1", "10", "40"] * 2


def test_rows_without_sizes_have_no_panel():
    all_groups = compared(rows("kl", KL) + rows("kl", KL, views=1))
    assert lines.panels_of(all_groups, lines.OVER_BYTES) == []
