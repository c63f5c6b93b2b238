"""A whole training: evaluated, saved, stopped anywhere and resumed exactly."""

import contextlib
import dataclasses
import functools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax import losses
from gift_jax.runtime import preemption
from gift_jax.runtime.errors import InputError
from gift_jax.soft_labels import views
from gift_jax.train import epochs as epochs_lib
from gift_jax.train import fit as fit_lib
from gift_jax.train.checkpoint import Checkpoints
from gift_jax.train.epochs import make_run_epoch, train_epochs
from gift_jax.train.fit import Record, fit, fit_together
from gift_jax.train.streaming import StreamedData
from tests.train.training import (
    CE,
    GIFT,
    VIEW_IMAGES,
    assert_same_weights,
    assert_trees_equal,
    make_data,
    make_soft_labels,
    make_state,
)

# 40 images in batches of 16: three steps an epoch.
OPTIONS = {
    "loss": GIFT,
    "view_images": VIEW_IMAGES,
    "epochs": 4,
    "batch_size": 16,
    "devices": jax.devices()[:1],
}


def fit_small(state=None, **options):
    return fit(
        make_state() if state is None else state,
        make_data(),
        make_soft_labels(),
        **{**OPTIONS, "order_key": jax.random.key(4), **options},
    )


def open_checkpoints(path, keep=9):
    return Checkpoints(path, keep=keep, identity={"optimizer": "adamw"})


def saved(path):
    """Numbers of the checkpoints."""
    return sorted(int(p.name) for p in path.iterdir() if p.name.isdigit())


@pytest.fixture
def request_stop(monkeypatch):
    """`request_stop()` is what SIGTERM does; `request_stop.forget()` a new start."""
    event = threading.Event()
    monkeypatch.setattr(preemption, "_requested", event)

    def request():
        event.set()

    request.forget = event.clear
    return request


@pytest.fixture(scope="module")
def whole():
    """A training that nothing interrupted, and what it told."""
    told = []
    state, record = fit_small(
        evaluators=[lambda model, state: {"step": float(state.step)}],
        evaluate_every=2,
        on_epoch=lambda record, metrics: told.append((record, metrics)),
    )
    return jax.device_get(state), record, told


def without_time(record):
    return dataclasses.replace(record, train_seconds=0.0)


def test_fit_is_the_loop_over_epochs(whole):
    state, record, told = whole
    loop = train_epochs(
        make_state(),
        make_data(),
        make_soft_labels(),
        make_run_epoch(
            loss=GIFT, view_images=VIEW_IMAGES, devices=tuple(OPTIONS["devices"])
        ),
        first_epoch=0,
        epochs=4,
        batch_size=16,
        order_keys=[jax.random.key(4)],
        devices=OPTIONS["devices"],
    )
    for epoch, expected, metrics in loop:
        assert told[epoch][1] == metrics.means()
        if epoch == 0:
            first_norm = float(metrics.values["gradient_norm"][0])
    assert_trees_equal(state.params, expected.params)
    assert record.gradient_norm_first == first_norm
    assert (record.finished_epochs, record.steps) == (4, 12)
    assert record.train_seconds > 0 and record.partial == {}
    assert record.diverged_epoch is record.diverged_step is None


def test_the_state_that_is_given_stays(whole):
    state = make_state()
    before = jax.device_get(state.params)
    fitted, _ = fit_small(state, epochs=1)
    assert_trees_equal(jax.device_get(state.params), before)
    assert np.any(
        fitted.params["classifier"]["kernel"] != before["classifier"]["kernel"]
    )


def test_evaluations_are_where_they_are_due(whole):
    _, record, told = whole
    assert [r.is_evaluated for r, _ in told] == [False, True, False, True]
    assert [r.last for r, _ in told] == [{}, {"step": 6.0}, {"step": 6.0}, {"step": 12}]
    assert record.best == {"step": 12.0}


def test_the_best_is_the_highest(tmp_path):
    scores = iter([10.0, 30.0, 20.0, 25.0])
    with open_checkpoints(tmp_path, keep=1) as checkpoints:
        _, record = fit_small(
            evaluators=[lambda model, state: {"top1": next(scores)}],
            evaluate_every=1,
            checkpoints=checkpoints,
        )
    assert record.last == {"top1": 25.0} and record.best == {"top1": 30.0}
    # Its checkpoint is kept, and the last.
    assert saved(tmp_path) == [6, 12]


def test_evaluations_are_numbers_of_any_kind_and_nan_is_no_best(tmp_path):
    scores = iter([np.float32(50), jnp.float32(np.nan), np.float64(40), 45])
    with open_checkpoints(tmp_path) as checkpoints:
        _, record = fit_small(
            evaluators=[lambda model, state: {"score": next(scores)}],
            evaluate_every=1,
            checkpoints=checkpoints,
        )
    assert record.last == {"score": 45.0} and record.best == {"score": 50.0}


def test_checkpoints_are_where_they_are_due(tmp_path):
    with open_checkpoints(tmp_path) as checkpoints:
        fit_small(checkpoints=checkpoints, save_every=2, epochs=5)
    assert saved(tmp_path) == [6, 12, 15]
    # A training that is at its end is not trained again.
    told = []
    with open_checkpoints(tmp_path) as checkpoints:
        state, record = fit_small(
            checkpoints=checkpoints,
            epochs=5,
            on_epoch=told.append,
            on_start=told.append,
        )
    assert told == [record] and record.steps == state.step == 15


def test_bars_hear_of_every_image():
    images = []
    fit_small(epochs=2, on_batch=images.append)
    assert images == [16, 16, 8] * 2


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize(
    "stop_after", [3, 5, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 11))]
)
def test_a_training_that_is_stopped_anywhere_ends_the_same(
    whole, tmp_path, request_stop, monkeypatch, scan, stop_after
):
    if scan:  # as on an accelerator, one step at once
        monkeypatch.setattr(epochs_lib, "_MOST_STEPS_AT_ONCE", 1)
        scanned = functools.partial(make_run_epoch, whole=True)
        monkeypatch.setattr(fit_lib, "make_run_epoch", scanned)
    told, dispatched = [], []

    def on_batch(images):
        dispatched.append(images)
        if len(dispatched) == stop_after:
            request_stop()

    def go_on():
        with open_checkpoints(tmp_path) as checkpoints:
            return fit_small(
                checkpoints=checkpoints,
                evaluators=[lambda model, state: {"step": float(state.step)}],
                evaluate_every=2,
                on_epoch=lambda record, metrics: told.append((record, metrics)),
                on_batch=on_batch,
            )

    with pytest.raises(preemption.PreemptedError):
        go_on()
    # Not one step more, and it is saved.
    assert len(dispatched) == saved(tmp_path)[-1] == stop_after
    request_stop.forget()
    state, record = go_on()
    assert len(dispatched) == 12
    if scan:
        assert_same_weights(state, whole[0])
        assert [r.steps for r, _ in told] == [3, 6, 9, 12]
    else:
        assert_trees_equal(state.variables, whole[0].variables)
        assert_trees_equal(state.opt_state, whole[0].opt_state)
        assert without_time(record) == without_time(whole[1])
        expected = [(without_time(record), metrics) for record, metrics in whole[2]]
        assert [(without_time(record), metrics) for record, metrics in told] == expected


def test_an_interrupted_epoch_is_told_of_once_it_is_whole(tmp_path, request_stop):
    starts = []
    with (
        open_checkpoints(tmp_path) as checkpoints,
        pytest.raises(preemption.PreemptedError),
    ):
        fit_small(
            checkpoints=checkpoints,
            on_start=starts.append,
            on_batch=lambda images: request_stop(),
        )
    assert starts == [Record()]
    request_stop.forget()
    with open_checkpoints(tmp_path) as checkpoints:
        fit_small(checkpoints=checkpoints, epochs=1, on_start=starts.append)
    record = starts[1]
    assert (record.finished_epochs, record.steps) == (0, 1)
    assert set(record.partial) == {"loss", "top1", "gradient_norm"}
    assert record.partial["gradient_norm"] == [record.gradient_norm_first]


def test_hosts_agree_every_few_steps(monkeypatch, request_stop):
    monkeypatch.setattr(fit_lib.hosts, "count", lambda: 2)
    asked = []
    monkeypatch.setattr(preemption, "agreed", lambda: asked.append(1) or len(asked) > 1)
    training = fit_lib._Training(
        **{"data": None, "soft_labels": None, **OPTIONS}  # of which none is used
    )
    answers = [training.stop(np.array([16])) for _ in range(32)]
    assert answers == [False] * 31 + [True]
    # A scan is several steps.
    assert training.stop(np.full(64, 16))


# --- Several students ---------------------------------------------------------------


def students():
    return [
        make_state(seed=seed, learning_rate=rate)
        for seed, rate in ((3, 1e-3), (5, 3e-3), (7, 1e-3))
    ]


ORDERS = [jax.random.key(number) for number in (7, 8, 9)]


def fit_students(**options):
    return fit_together(
        students(),
        make_data(),
        make_soft_labels(),
        **{**OPTIONS, "order_keys": ORDERS, **options},
    )


@functools.cache
def alone(index):
    """What the student is trained to without the others."""
    return fit_small(students()[index], order_key=ORDERS[index])


def progress_of(student, teacher, labels, *, progress):
    return 0 * student.sum(axis=-1) + progress


@pytest.mark.parametrize(("scan", "count"), [(False, 1), (True, 3)])
def test_a_loss_is_told_how_much_of_the_training_is_done(scan, count, monkeypatch):
    monkeypatch.setattr(
        fit_lib, "make_run_epoch", functools.partial(make_run_epoch, whole=scan)
    )
    told = []
    fit_together(
        students()[:count],
        make_data(),
        make_soft_labels(),
        **OPTIONS | {"loss": losses.get_loss(progress_of)},
        order_keys=ORDERS[:count],
        on_epoch=lambda index, record, metrics: told.append(metrics["loss"]),
    )
    assert told == pytest.approx(sorted([0.0, 0.25, 0.5, 0.75] * count))


@pytest.mark.slow
def test_students_that_stand_unequally_far_end_as_those_trained_alone(tmp_path):
    paths = [tmp_path / str(index) for index in range(3)]
    # The second is ahead of the others.
    with open_checkpoints(paths[1]) as checkpoints:
        fit_small(students()[1], order_key=ORDERS[1], epochs=2, checkpoints=checkpoints)
    started, told = [], []
    with contextlib.ExitStack() as stack:
        fitted = fit_students(
            checkpoints=[stack.enter_context(open_checkpoints(p)) for p in paths],
            on_start=lambda index, record: started.append((index, record.steps)),
            on_epoch=lambda index, record, metrics: told.append(
                (index, record.finished_epochs)
            ),
        )
    assert started == [(0, 0), (2, 0), (1, 6)]
    together = [(i, epoch) for epoch in (1, 2, 3, 4) for i in (0, 2)]
    assert told == [*together, (1, 3), (1, 4)]
    for (state, record), (other, expected) in zip(
        fitted, map(alone, range(3)), strict=True
    ):
        assert_same_weights(state, other)
        assert record.gradient_norm_first == pytest.approx(
            expected.gradient_norm_first, rel=1e-3
        )


@pytest.mark.slow
def test_students_that_are_stopped_together_go_on_together(tmp_path, request_stop):
    paths = [tmp_path / str(index) for index in range(3)]
    dispatched = []

    def on_batch(images):
        dispatched.append(images)
        if len(dispatched) == 5:
            request_stop()

    def go_on(paths):
        with contextlib.ExitStack() as stack:
            return fit_students(
                checkpoints=[stack.enter_context(open_checkpoints(p)) for p in paths],
                on_batch=on_batch,
            )

    with pytest.raises(preemption.PreemptedError):
        go_on(paths)
    assert [saved(path) for path in paths] == [[5]] * 3
    request_stop.forget()
    resumed = go_on(paths)
    assert len(dispatched) == 12
    for (state, record), (other, expected) in zip(resumed, fit_students(), strict=True):
        assert_trees_equal(state.variables, other.variables)
        assert without_time(record) == without_time(expected)


def test_a_student_that_diverges_leaves_the_others_alone():
    states = students()
    states[1] = make_state(seed=5, learning_rate=1e30)
    told = []
    fitted = fit_together(
        states,
        make_data(),
        make_soft_labels(),
        **OPTIONS,
        order_keys=ORDERS,
        on_epoch=lambda index, record, metrics: told.append(index),
    )
    record = fitted[1].record
    assert record.diverged_epoch == 0 and record.diverged_step in (1, 2)
    assert record.finished_epochs == record.steps == 0
    assert told.count(0) == told.count(2) == 4 and told.count(1) == 0
    assert_same_weights(fitted[0].state, alone(0).state)
    assert fitted[0].record.diverged_step is None


def test_training_ends_where_all_have_diverged():
    images = []
    _, record = fit_small(make_state(learning_rate=1e30), on_batch=images.append)
    # In three batches each that epoch, and the next, which began before it was seen.
    assert record.diverged_epoch == 0 and len(images) == 6


def test_note_of_an_epoch_is_taken_while_the_next_is_trained_unless_it_is_evaluated():
    happened = []
    fit_small(
        epochs=4,
        evaluate_every=3,
        evaluators=[lambda model, state: happened.append("evaluated") or {}],
        on_batch=lambda images: happened.append(images),
        on_epoch=lambda record, metrics: happened.append(
            f"epoch {record.finished_epochs}"
        ),
    )
    epoch = [16, 16, 8]
    assert happened == [
        *(*epoch, *epoch, "epoch 1", *epoch, "epoch 2", "evaluated", "epoch 3"),
        *(*epoch, "evaluated", "epoch 4"),
    ]


# --- What it is given ---------------------------------------------------------------


def test_hard_labels_need_no_soft_labels():
    data, options = make_data(), {**OPTIONS, "loss": CE, "order_key": jax.random.key(4)}
    state, _ = fit(make_state(), data, make_soft_labels(num_views=4), **options)
    other, _ = fit(make_state(), data, **options)
    assert_trees_equal(state.params, other.params)


def test_by_default_as_many_devices_as_the_batch_divides_over(monkeypatch):
    used = []

    def no_epoch(*, devices, **_):
        used.append(len(devices))
        raise KeyboardInterrupt

    monkeypatch.setattr(fit_lib, "make_run_epoch", no_epoch)
    for batch_size in (16, 10, 7):
        with pytest.raises(KeyboardInterrupt):
            fit_small(devices=None, batch_size=batch_size)
    assert used == [8, 5, 7]


def test_a_batch_that_does_not_divide_over_the_devices_given_is_refused():
    with pytest.raises(InputError, match="does not divide over 4 devices"):
        fit_small(devices=jax.devices()[:4], batch_size=10)


def test_only_augmented_views_are_streamed():
    data = make_data()
    streamed = StreamedData(data.labels, data.view_key, None)
    with pytest.raises(InputError, match="ReplayedViews"):
        fit(
            make_state(),
            streamed,
            **{**OPTIONS, "view_images": views.ReplayedViews(None)},
            order_key=jax.random.key(4),
        )


def test_what_a_notebook_shows_of_a_training_is_short():
    fitted = fit_small(epochs=1)
    shown = repr(fitted)
    assert "parameters, step 3)" in shown and "gradient_norm_first=" in shown
    assert len(shown) < 400
    assert repr(make_data()).startswith("TrainData(images (40, ")
    assert repr(make_soft_labels()).startswith("FixedSoftLabels(logits (")
