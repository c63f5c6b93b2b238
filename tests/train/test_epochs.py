"""The step and the loop: the same training whatever the devices, exact resumption."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gift_jax import augment, losses, models, optimizers
from gift_jax.data import preprocess
from gift_jax.runtime.devices import AXIS
from gift_jax.soft_labels import relabel, views
from gift_jax.soft_labels.store import FixedSoftLabels, SoftLabels, open_store
from gift_jax.teachers.teacher import Teacher
from gift_jax.train import batches
from gift_jax.train.epochs import (
    DivergedError,
    EpochMetrics,
    check_finite,
    make_run_epoch,
    train_epochs,
)
from gift_jax.train.step import (
    TrainState,
    create_train_state,
    stack_states,
    unstack_state,
)

NUM_CLASSES = 4
SIDE = 8
NORMALIZATION = preprocess.Normalization((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
# The whole of DiffAug takes much longer to compile, and is tested on its own.
SPEC = augment.AugmentSpec(diffaug="flip_crop")
VIEW_IMAGES = views.AugmentedViews(SPEC, NORMALIZATION)
GIFT = losses.get_loss("gift")


def make_data(num_images: int = 40) -> views.TrainData:
    rng = np.random.default_rng(0)
    shape = (num_images, SIDE, SIDE, 3)
    return views.TrainData(
        images=jnp.asarray(rng.integers(0, 256, shape, dtype=np.uint8)),
        labels=jnp.asarray(np.arange(num_images) % NUM_CLASSES, jnp.int32),
        view_key=jax.random.key(1),
    )


def make_soft_labels(num_images: int = 40, num_views: int = 3) -> SoftLabels:
    logits = np.random.default_rng(1).normal(size=(num_images, NUM_CLASSES))
    return FixedSoftLabels(logits.astype(np.float16), num_views)


@functools.cache
def make_model(name: str = "conv2", **options):
    if name.startswith("conv"):
        options = {"width": 8, **options}
    return models.create_model(
        name,
        num_classes=NUM_CLASSES,
        image_size=SIDE,
        axis_name=AXIS,
        **options,
    )


def make_state(
    model=None,
    *,
    optimizer: str = "adamw",
    epochs: int = 4,
    steps: int = 3,
    seed: int = 3,
    learning_rate: float | None = None,
) -> TrainState:
    spec = optimizers.OptimizerSpec(optimizer)
    tx = optimizers.build_optimizer(spec, epochs=epochs, steps_per_epoch=steps)
    assert spec.learning_rate is not None
    return create_train_state(
        model or make_model(),
        tx,
        (SIDE, SIDE, 3),
        learning_rate=spec.learning_rate if learning_rate is None else learning_rate,
        init_key=jax.random.key(seed),
        dropout_key=jax.random.key(2),
    )


def run(
    *,
    num_devices: int = 1,
    batch_size: int = 16,
    epochs: int = 4,
    state=None,
    first_epoch: int = 0,
    data=None,
    labels=None,
    loss=GIFT,
    scan=None,
):
    devices = tuple(jax.devices()[:num_devices])
    run_epoch = make_run_epoch(
        loss=loss,
        view_images=VIEW_IMAGES,
        devices=devices,
        scan=scan,
    )
    data = make_data() if data is None else data
    history = []
    for epoch, final, metrics in train_epochs(
        make_state() if state is None else state,
        data,
        labels or make_soft_labels(len(data.labels)),
        run_epoch,
        first_epoch=first_epoch,
        epochs=epochs,
        batch_size=batch_size,
        order_keys=[jax.random.key(4)],
        devices=devices,
    ):
        check_finite(epoch, metrics)
        history.append(metrics.means()["loss"])
    return jax.device_get(final), np.array(history)


def assert_trees_equal(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def assert_same_weights(state, other):
    """Equal to rounding.

    A convolution's bias before batch norm has a gradient of zero; Adam blows up its
    rounding errors, so these biases are left out.
    """
    kernels, other_kernels = (
        {
            jax.tree_util.keystr(path): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(s.params)
            if leaf.ndim > 1
        }
        for s in (state, other)
    )
    assert kernels.keys() == other_kernels.keys()
    for name in kernels:
        np.testing.assert_allclose(
            kernels[name], other_kernels[name], rtol=0, atol=1e-4, err_msg=name
        )


@pytest.fixture(scope="module")
def on_one_device():
    # 40 images in batches of 8: 5 steps an epoch, 20 in all.
    return run(num_devices=1, batch_size=8)


@pytest.mark.parametrize("num_devices", [2, 4, 8])
def test_any_number_of_devices_gives_the_same_training(on_one_device, num_devices):
    state, losses_seen = run(num_devices=num_devices, batch_size=8)
    assert state.step == 20
    np.testing.assert_allclose(losses_seen, on_one_device[1], rtol=0, atol=1e-5)
    assert_same_weights(state, on_one_device[0])


def test_gradient_over_devices_is_that_of_the_whole_batch():
    # One SGD step of rate 1 without momentum shows the gradient itself.
    data, model = make_data(16), make_model(norm="none")
    logits = make_soft_labels(16).start_reading(0).result().logits
    variables = make_state(model).variables
    indices = np.arange(16, dtype=np.int32)

    def whole_batch(params):
        images = VIEW_IMAGES.images(data, 0, indices)
        outputs = model.apply({"params": params}, images, train=True)
        return GIFT(outputs, jnp.asarray(logits), data.labels).mean()

    expected = jax.grad(whole_batch)(variables["params"])
    state = TrainState.create(
        apply_fn=model.apply,
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        tx=optax.sgd(1.0),
        dropout_key=jax.random.key(2),
    )
    run_epoch = make_run_epoch(
        loss=GIFT,
        view_images=VIEW_IMAGES,
        devices=tuple(jax.devices()[:4]),
    )
    before = jax.device_get(variables["params"])
    one_batch = batches.EpochBatches(indices.reshape(1, 4, 4), None)
    after, _ = run_epoch(state, data, views.View(np.int32(0), logits), one_batch)
    gradient = jax.tree.map(np.subtract, before, jax.device_get(after.params))
    jax.tree.map(
        lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-6),
        gradient,
        expected,
    )


def test_scan_equals_dispatching_every_step():
    stepwise, losses_stepwise = run(scan=False)
    scanned, losses_scanned = run(scan=True)
    np.testing.assert_allclose(losses_scanned, losses_stepwise, atol=1e-5)
    assert_same_weights(scanned, stepwise)


def test_short_last_batch_is_trained_on_whatever_the_devices():
    # 40 = 2 * 16 + 8, and 8 images do not make 4 per device on 4 devices of 16.
    state, losses_seen = run(num_devices=1)
    assert state.step == 4 * 3
    _, on_four = run(num_devices=4)
    np.testing.assert_allclose(on_four, losses_seen, atol=1e-5)


def test_resumed_training_is_bit_for_bit_the_uninterrupted_one():
    whole, losses_whole = run(epochs=4)
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
def teacher() -> Teacher:
    model = make_model("conv1")
    variables = model.init(
        jax.random.key(7), jnp.zeros((1, SIDE, SIDE, 3)), train=False
    )
    other = preprocess.Normalization((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    return Teacher("conv1", model, variables, other, top1=0.0, fingerprint="")


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
    online = relabel.OnlineSoftLabels(make_label_views(teacher, data), 40, 4, 8)
    stored_state, stored_losses = run(data=data, labels=store)
    online_state, online_losses = run(data=data, labels=online)
    np.testing.assert_allclose(stored_losses, online_losses, rtol=0, atol=1e-5)
    assert_same_weights(stored_state, online_state)


@pytest.mark.parametrize("name", ["loss", "gradient_norm"])
def test_divergence_is_an_error_with_its_step(name):
    fine, bad = np.ones(3, np.float32), np.array([0.5, np.nan, 0.4], np.float32)
    values = {"loss": fine, "gradient_norm": fine, name: bad}
    metrics = EpochMetrics(values, np.array([16, 16, 8]))
    with pytest.raises(DivergedError, match="nan in step 7, epoch 2") as caught:
        check_finite(2, metrics)
    assert (caught.value.epoch, caught.value.step) == (2, 7)


def test_means_are_over_images():
    values = np.array([1.0, 2.0, 6.0], np.float32)
    metrics = EpochMetrics({"loss": values}, np.array([16, 16, 8]))
    assert metrics.means() == {"loss": pytest.approx((16 + 32 + 48) / 40)}


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("num_devices", [1, 2])
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
            scan=scan,
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


def test_dropout_is_drawn_anew_in_every_step():
    class Dropped(nn.Module):
        @nn.compact
        def __call__(self, images, step):
            features = images.reshape(len(images), -1)
            features = nn.Dropout(0.5, deterministic=not step)(features)
            return nn.Dense(NUM_CLASSES)(features)

    # Without updates, and with one view, only dropout tells one epoch from another.
    state = make_state(Dropped(), optimizer="sgd", learning_rate=0.0)
    labels = make_soft_labels(num_views=1)
    _, losses_seen = run(state=state, labels=labels, batch_size=40, epochs=3)
    assert len(set(losses_seen)) == 3
