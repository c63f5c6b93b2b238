"""The loop over epochs: the same training whatever the devices, exact resumption."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax.data import preprocess
from gift_jax.soft_labels import relabel
from gift_jax.soft_labels.online import OnlineSoftLabels
from gift_jax.soft_labels.store import open_store
from gift_jax.teachers import FlaxTeacher
from gift_jax.train import batches
from gift_jax.train import epochs as epochs_lib
from gift_jax.train.epochs import EpochMetrics, make_run_epoch, train_epochs
from gift_jax.train.step import stack_states, unstack_state
from tests.train.training import (
    GIFT,
    NORMALIZATION,
    NUM_CLASSES,
    SIDE,
    VIEW_IMAGES,
    assert_same_weights,
    assert_trees_equal,
    make_data,
    make_model,
    make_soft_labels,
    make_state,
)


def run(
    *,
    num_devices: int = 1,
    epochs: int = 4,
    state=None,
    first_epoch: int = 0,
    data=None,
    labels=None,
    whole=None,
):
    devices = tuple(jax.devices()[:num_devices])
    run_epoch = make_run_epoch(
        loss=GIFT,
        view_images=VIEW_IMAGES,
        devices=devices,
        whole=whole,
    )
    data = make_data() if data is None else data
    history = []
    for _, final, metrics in train_epochs(
        make_state() if state is None else state,
        data,
        labels or make_soft_labels(len(data.labels)),
        run_epoch,
        first_epoch=first_epoch,
        epochs=epochs,
        batch_size=16,
        order_keys=[jax.random.key(4)],
        devices=devices,
    ):
        assert metrics.divergence() is None
        history.append(metrics.means()["loss"])
    return jax.device_get(final), np.array(history)


@pytest.fixture(scope="module")
def on_one_device():
    # 40 images in batches of 16: two steps an epoch, and one of 8.
    return run(num_devices=1)


@pytest.mark.parametrize(
    "num_devices", [*(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4)), 8]
)
def test_any_number_of_devices_gives_the_same_training(on_one_device, num_devices):
    # 8 images do not make 4 for each of 4 devices: all compute the whole of them.
    state, losses_seen = run(num_devices=num_devices)
    assert state.step == 4 * 3
    np.testing.assert_allclose(losses_seen, on_one_device[1], rtol=0, atol=1e-5)
    assert_same_weights(state, on_one_device[0])


def test_scan_equals_dispatching_every_step(on_one_device, monkeypatch):
    # A scan of two steps an epoch, and one of the rest.
    monkeypatch.setattr(epochs_lib, "_MOST_STEPS_AT_ONCE", 2)
    scanned, losses_scanned = run(whole=True)
    np.testing.assert_allclose(losses_scanned, on_one_device[1], atol=1e-5)
    assert_same_weights(scanned, on_one_device[0])


def test_resumed_training_is_bit_for_bit_the_uninterrupted_one(on_one_device):
    whole, losses_whole = on_one_device
    half, losses_first = run(epochs=2)
    resumed, losses_second = run(
        epochs=4,
        first_epoch=2,
        state=make_state().replace(
            step=half.step,
            params=half.params,
            opt_state=half.opt_state,
            batch_stats=half.batch_stats,
        ),
    )
    assert_trees_equal(resumed.variables, whole.variables)
    assert_trees_equal(resumed.opt_state, whole.opt_state)
    np.testing.assert_array_equal(
        np.concatenate([losses_first, losses_second]), losses_whole
    )


@pytest.fixture(scope="module")
def teacher() -> FlaxTeacher:
    model = make_model()
    variables = model.init(
        jax.random.key(7), jnp.zeros((1, SIDE, SIDE, 3)), train=False
    )
    other = preprocess.Normalization((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    return FlaxTeacher("conv1", model, variables, other)


def make_label_views(teacher, data, num_devices=1):
    return relabel.make_label_views(
        teacher,
        data,
        VIEW_IMAGES,
        transform=NORMALIZATION,
        devices=jax.devices()[:num_devices],
    )


def test_training_on_stored_labels_is_training_with_the_teacher_online(
    teacher, tmp_path
):
    data = make_data()
    store = open_store(
        tmp_path / "logits", views=4, num_images=40, num_classes=NUM_CLASSES
    )
    # Another batch size and other devices than online: labels do not depend on them.
    relabel.relabel(store, make_label_views(teacher, data, 2), batch_size=12)
    online = OnlineSoftLabels(make_label_views(teacher, data), 40, 4, 8)
    stored_state, stored_losses = run(data=data, labels=store)
    online_state, online_losses = run(data=data, labels=online)
    np.testing.assert_allclose(stored_losses, online_losses, rtol=0, atol=1e-5)
    assert_same_weights(stored_state, online_state)


@pytest.mark.parametrize("name", ["loss", "gradient_norm"])
def test_divergence_is_found_in_its_step(name):
    fine, bad = np.ones(3, np.float32), np.array([0.5, np.nan, 0.4], np.float32)
    values = {"loss": fine, "gradient_norm": fine}
    sizes = np.array([16, 16, 8])
    assert EpochMetrics([values], sizes).divergence() is None
    step, what = EpochMetrics([values | {name: bad}], sizes).divergence()
    assert step == 1
    assert what == f"the {name} is nan"


def test_a_gradient_overflows_before_the_loss():
    values = {
        "loss": np.array([1, 2, np.nan], np.float32),
        "gradient_norm": np.array([1, np.inf, np.nan], np.float32),
    }
    found = EpochMetrics([values], np.array([16, 16, 8])).divergence()
    assert found == (1, "the gradient_norm is inf")


def test_means_are_over_images():
    values = np.array([1.0, 2.0, 6.0], np.float32)
    metrics = EpochMetrics([{"loss": values}], np.array([16, 16, 8]))
    assert metrics.means() == {"loss": pytest.approx((16 + 32 + 48) / 40)}


@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("num_devices", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_students_that_train_at_once_are_those_trained_one_by_one(num_devices, scan):
    rates, seeds = (1e-3, 3e-3), (3, 5)
    orders = [jax.random.key(7), jax.random.key(8)]
    devices = tuple(jax.devices()[:num_devices])

    def states():
        return [
            make_state(seed=seed, learning_rate=rate)
            for seed, rate in zip(seeds, rates, strict=True)
        ]

    def history(state, order_keys, students):
        run_epoch = make_run_epoch(
            loss=GIFT,
            view_images=VIEW_IMAGES,
            devices=devices,
            students=students,
            whole=scan,
        )
        return [
            (jax.device_get(state), metrics)
            for _, state, metrics in train_epochs(
                state,
                make_data(),
                make_soft_labels(),
                run_epoch,
                first_epoch=0,
                epochs=3,
                batch_size=16,
                order_keys=order_keys,
                devices=devices,
            )
        ]

    together = history(stack_states(states()), orders, students=2)
    for index, (state, order) in enumerate(zip(states(), orders, strict=True)):
        alone = history(state, [order], students=None)
        for (final, metrics), (joint, joint_metrics) in zip(
            alone, together, strict=True
        ):
            theirs = joint_metrics.of_student(index)
            for name in ("loss", "gradient_norm"):
                np.testing.assert_allclose(
                    theirs.values[name], metrics.values[name], rtol=1e-3, atol=1e-5
                )
            np.testing.assert_array_equal(theirs.sizes, metrics.sizes)
        assert_same_weights(unstack_state(joint, index), final)


# --- Stops in the middle of an epoch ------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "rest", "done", "most", "expected"),
    [
        # Every step on its own, and the rest.
        (3, True, 0, 1, [1, 1, 1, "rest"]),
        (3, True, 2, 1, [1, "rest"]),
        (3, True, 3, 1, ["rest"]),
        (3, True, 4, 1, []),
        # Parts of two lengths at most.
        (250, False, 0, 64, [63, 63, 63, 61]),
        (64, True, 0, 64, [64, "rest"]),
        (0, True, 0, 64, ["rest"]),
        # Parts begin where they always do.
        (250, False, 126, 64, [63, 61]),
        (250, False, 130, 64, [59, 61]),
    ],
)
def test_parts_of_an_epoch(steps, rest, done, most, expected):
    full = np.arange(steps * 8, dtype=np.int32).reshape(steps, 2, 4)
    last = np.full((2, 3), -1, np.int32) if rest else None
    parts = epochs_lib._parts(batches.EpochBatches(full, last), done, most)
    assert ["rest" if part.shape[2] == 3 else len(part) for part in parts] == expected
    if rest and parts:
        np.testing.assert_array_equal(parts.pop(), last[None])
    left = np.concatenate([*parts, full[:0]])
    np.testing.assert_array_equal(left, full[done:])


@pytest.mark.parametrize("scan", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_epoch_that_was_stopped_goes_on_exactly(scan, monkeypatch):
    # 40 images in batches of 6: six steps, two or one at once, and a rest of four.
    monkeypatch.setattr(epochs_lib, "_MOST_STEPS_AT_ONCE", 2)
    devices = tuple(jax.devices()[:1])
    run_epoch = make_run_epoch(
        loss=GIFT, view_images=VIEW_IMAGES, devices=devices, whole=scan
    )
    data, view = make_data(), make_soft_labels().start_reading(1)()
    order = batches.epoch_batches(
        batches.epoch_order(jax.random.key(4), 1, 40), batch_size=6, num_devices=1
    )
    told = []

    def after(steps):
        def stop(sizes):
            told.extend(sizes)
            return len(told) >= steps

        return stop

    whole, metrics = run_epoch(make_state(), data, view, order, stop=after(8))
    assert told == [6, 6, 6, 6, 6, 6, 4] and metrics.sizes.tolist() == told
    told.clear()
    half, some = run_epoch(make_state(), data, view, order, stop=after(4))
    assert half.step == 4 and told == some.sizes.tolist() == [6] * 4
    told.clear()
    rest, both = run_epoch(half, data, view, order, earlier=some.values, stop=after(8))
    assert rest.step == 7 and told == [6, 6, 4]
    assert_trees_equal(rest.variables, whole.variables)
    assert_trees_equal(rest.opt_state, whole.opt_state)
    assert_trees_equal(both.values, metrics.values)
    assert both.sizes.tolist() == metrics.sizes.tolist()
