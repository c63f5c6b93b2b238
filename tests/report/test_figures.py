"""Tests of `gift_jax.report.figures`: which there are, and what they are called."""

import io

import numpy as np
import pytest
from PIL import Image

from gift_jax.report import examples, figures, reading
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


def make(all_rows, *, chosen=(), curves=None, images=()):
    all_groups = compared(all_rows, "kl", chosen)
    losses = list(dict.fromkeys(group.loss for group in all_groups))
    return list(figures.make_figures(all_groups, losses, chosen, curves or {}, images))


def names(made):
    return [figure.name for figure in made]


def test_groups_that_are_points_have_no_figures_of_their_own():
    over_ipc = [
        r
        for loss in ("kl", "gift")
        for ipc in (1, 10)
        for r in rows(loss, KL, ipc=ipc, trained_on=f"a{ipc}")
    ]
    assert names(make(over_ipc)) == ["ipc", "regret"]
    over_bytes = [
        r
        for views in (1, 40)
        for r in rows("kl", KL, views=views, soft_label_bytes=20 * views)
    ]
    assert names(make(over_bytes)) == ["soft_label_bytes"]
    two_optimizers = over_ipc + rows("kl", KL, ipc=1, trained_on="a1", optimizer="sgd")
    assert names(make(two_optimizers)) == [
        *("ipc", "regret", "accuracy_1", "differences_1")
    ]


def test_benchmarks_are_numbered_and_named_by_what_tells_them_apart():
    made = make(rows("kl", KL) + rows("kl", KL, student="vgg11", init_from="89abcdef"))
    assert [(figure.name, figure.heading) for figure in made] == [
        ("accuracy_1", "Accuracy: student conv3"),
        ("accuracy_2", "Accuracy: student vgg11"),
    ]
    made = make(rows("kl", KL) + rows("kl", KL, init_from="89abcdef"))
    assert made[1].heading == "Accuracy: initial weights 89abcd"


def test_rates_are_of_held_out_images_where_there_are_some():
    several = rows("kl", KL) + rows("kl", KL, learning_rate=RATES[2])
    assert "on the test split" in make(several)[-1].caption
    held_out = make(several, chosen=choices(kl=RATES[2]))
    assert names(held_out) == ["accuracy", "learning_rates"]
    assert "held out from the training data" in held_out[-1].caption
    of_others = [{**c, "trained_on": "f0"} for c in choices(kl=RATES[2])]
    assert "on the test split" in make(several, chosen=of_others)[-1].caption


@pytest.mark.parametrize("order", [1, -1])
def test_tuned_rates_of_losses_of_one_s_own_are_beside_the_others(order):
    own = [r | {"loss_code": "ab12cd34"} for r in rows("mine", GIFT)]
    of_own = [c | {"loss_code": "ab12cd34"} for c in choices(mine=RATES[2])]
    runs = [*rows("kl", KL), *own][::order]
    (figure,) = (
        f
        for f in make(runs, chosen=[*choices(kl=RATES[2]), *of_own])
        if f.name == "learning_rates"
    )
    place = figure.data[0].index("loss")
    assert {line[place] for line in figure.data[1:]} == {"kl", "mine"}


def test_there_are_figures_of_what_was_recorded():
    runs = [*rows("kl", KL[:1]), row("gift", 0, None, status="diverged")]
    curve = np.array([[1, 10.0], [2, 20.0]])
    nothing = np.empty((0, 2))
    curves = {reading.run_key(runs[1]): reading.Curve(curve, nothing, nothing)}
    assert names(make(runs, curves=curves)) == ["accuracy", "learning_curves"]
    curves = {reading.run_key(runs[0]): reading.Curve(curve, curve, curve)}
    assert names(make(runs, curves=curves))[1:] == ["learning_curves", "gradient_norms"]


def test_what_is_tuned_and_default_at_once_is_drawn_once():
    runs = rows("kl", KL[:1])
    curve = np.array([[1, 10.0], [2, 20.0]])
    curves = {reading.run_key(runs[0]): reading.Curve(curve, curve, curve)}
    made = {
        figure.name: figure
        for figure in make(runs, chosen=choices(kl=DEFAULT_RATE), curves=curves)
    }
    heights = {
        name: Image.open(io.BytesIO(made[name].png)).height
        for name in ("accuracy", "learning_curves")
    }
    # Bars have a panel for each kind of rate, side by side; curves one row of panels.
    assert heights == {"accuracy": int(0.94 * 240), "learning_curves": int(2.1 * 240)}


def test_distilled_datasets_are_side_by_side():
    grid = np.random.default_rng(0).integers(0, 256, (40, 20, 3)).astype(np.uint8)
    several = [
        examples.Examples(name, np.ones((2, 4, 4, 3)), np.arange(2), grid=grid)
        for name in ("random_ipc5", "rded_ipc5", "edc_ipc5", "dm_ipc5")
    ]
    made = make(rows("kl", GIFT), images=several)
    (found,) = [figure for figure in made if figure.name == "distilled"]
    assert [row[0] for row in found.data[1:]] == [images.name for images in several]
    shown = np.asarray(Image.open(io.BytesIO(found.png)).convert("RGB"))
    assert {tuple(color) for color in grid[::10, ::10].reshape(-1, 3)} <= {
        tuple(color) for color in np.unique(shown.reshape(-1, 3), axis=0)
    }
    assert "distilled" not in names(make(rows("kl", GIFT), images=several[:1]))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "No soft labels are stored"),
        ({"problem": "it is gone"}, "cannot be read: it is gone."),
        ({"probabilities": np.eye(2)}, "published with it"),
        ({"probabilities": np.eye(2), "views": np.ones((2, 4, 4, 3))}, "view 0, made"),
    ],
    ids=str,
)
def test_images_say_where_their_labels_are_from(fields, said):
    shown = examples.Examples("x", np.ones((2, 4, 4, 3)), np.arange(2), **fields)
    made = make(rows("kl", GIFT), images=[shown])[-1]
    assert made.name == "distilled_x"
    assert said in made.caption
