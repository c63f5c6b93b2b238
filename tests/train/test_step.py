"""The step: gradients over devices, mixed labels, dropout."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax import augment, losses
from gift_jax.models import layers
from gift_jax.optimizers import OptimizerSpec
from gift_jax.runtime.devices import AXIS
from gift_jax.runtime.errors import InputError
from gift_jax.soft_labels import views
from gift_jax.train import batches
from gift_jax.train.epochs import make_run_epoch, train_epochs
from gift_jax.train.step import (
    TrainState,
    batch_gradients,
    create_train_state,
    make_batch,
    new_student,
)
from tests.train.training import (
    CE,
    GIFT,
    NORMALIZATION,
    NUM_CLASSES,
    SIDE,
    VIEW_IMAGES,
    assert_same_weights,
    make_data,
    make_model,
    make_soft_labels,
    make_state,
)


# "dist" compares the examples of a batch with one another.
@pytest.mark.parametrize("loss", [GIFT, losses.get_loss("dist")], ids=["gift", "dist"])
def test_gradient_over_devices_is_that_of_the_whole_batch(loss):
    # One SGD step of rate 1 without momentum shows the gradient itself.
    data, model = make_data(16), make_model(norm="none")
    logits = make_soft_labels(16).logits
    state = create_train_state(
        model,
        OptimizerSpec("sgd", 1.0, weight_decay=0.0, momentum=0.0, schedule="constant"),
        (SIDE, SIDE, 3),
        epochs=1,
        steps_per_epoch=1,
        init_key=jax.random.key(3),
        dropout_key=jax.random.key(2),
    )
    indices = np.arange(16, dtype=np.int32)

    def whole_batch(params):
        images = VIEW_IMAGES.images(data, 0, indices)
        outputs = model.apply({"params": params}, images, train=True)
        return loss(outputs, jnp.asarray(logits), data.labels).mean()

    expected = jax.grad(whole_batch)(state.params)
    run_epoch = make_run_epoch(
        loss=loss, view_images=VIEW_IMAGES, devices=tuple(jax.devices()[:4])
    )
    before = jax.device_get(state.params)
    one_batch = batches.EpochBatches(indices.reshape(1, 4, 4), None)
    after, _ = run_epoch(state, data, views.View(np.int32(0), logits), one_batch)
    gradient = jax.tree.map(np.subtract, before, jax.device_get(after.params))
    jax.tree.map(
        lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-6),
        gradient,
        expected,
    )


# --- Hard labels of mixed images ----------------------------------------------------


def mixed_views(mix, label_mix="none"):
    spec = augment.AugmentSpec(flip=True, mix=mix, mix_alpha=0.8)
    return views.AugmentedViews(spec, NORMALIZATION, label_mix)


def cross_entropy(logits, labels):
    """In NumPy and float64."""
    logits = np.asarray(logits, np.float64)
    return np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]


@pytest.mark.parametrize(
    "mix", [pytest.param("mixup", marks=pytest.mark.slow), "cutmix"]
)
def test_the_loss_of_mixed_images_is_mixed(mix):
    data, view_images = make_data(), mixed_views(mix)
    indices, number = np.array([31, 2, 7, 16, 25], np.int32), np.int32(5)
    state = make_state(make_model(norm="none"))

    def one_device(state, data):
        view = views.View(number, None)
        batch = make_batch(data, view, jnp.asarray(indices), view_images=view_images)
        return batch_gradients(state.network, batch, loss=CE)

    found = jax.vmap(one_device, axis_name=AXIS, in_axes=None, axis_size=1)(state, data)
    images = view_images.images(data, number, indices)
    logits = state.model.apply(state.variables, images, train=False)
    partners, weights = jax.device_get(
        augment.mix_partners(
            data.view_key, 40, number, indices, view_images.spec, (SIDE, SIDE, 3)
        )
    )
    labels = np.asarray(data.labels)
    assert np.all((weights > 0) & (weights < 1))
    assert np.any(labels[partners] != labels[indices])
    by_hand = weights * cross_entropy(logits, labels[indices])
    by_hand += (1 - weights) * cross_entropy(logits, labels[partners])
    np.testing.assert_allclose(found.metrics["loss"][0], by_hand.mean(), rtol=1e-5)


def softmax(logits):
    powers = np.exp(np.asarray(logits, np.float64))
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("label_mix", ["hard", "both"])
def test_losses_with_both_labels_are_those_of_mixed_labels(label_mix):
    """Cross-entropies are linear in their labels: soft_ce + ce_weight * ce."""
    data, view_images = make_data(), mixed_views("cutmix", label_mix)
    indices, number = np.array([31, 2, 7, 16, 25], np.int32), np.int32(5)
    soft = jnp.asarray(make_soft_labels().logits)
    state = make_state(make_model(norm="none"))
    loss = losses.get_loss("soft_ce_ce", ce_weight=0.5)

    def one_device(state, data):
        view = views.View(number, soft)
        batch = make_batch(data, view, jnp.asarray(indices), view_images=view_images)
        return batch_gradients(state.network, batch, loss=loss)

    found = jax.vmap(one_device, axis_name=AXIS, in_axes=None, axis_size=1)(state, data)
    images = view_images.images(data, number, indices)
    logits = np.asarray(state.model.apply(state.variables, images, train=False))
    partners, weights = jax.device_get(
        augment.mix_partners(
            data.view_key, 40, number, indices, view_images.spec, (SIDE, SIDE, 3)
        )
    )
    share = weights[:, None].astype(np.float64)
    one_hot = np.eye(NUM_CLASSES)[np.asarray(data.labels)]
    hard = share * one_hot[indices] + (1 - share) * one_hot[partners]
    target = softmax(soft[indices])
    if label_mix == "both":
        target = share * target + (1 - share) * softmax(soft[partners])
    by_hand = -((target + 0.5 * hard) * np.log(softmax(logits))).sum(1)
    np.testing.assert_allclose(found.metrics["loss"][0], by_hand.mean(), rtol=1e-5)


def test_soft_labels_of_mixed_images_are_those_of_the_mixed_images():
    view = views.View(np.int32(0), make_soft_labels().logits)
    indices = jnp.arange(4)
    batch = make_batch(make_data(), view, indices, view_images=mixed_views("cutmix"))
    assert batch.mix is None
    np.testing.assert_array_equal(batch.logits, view.logits[:4])


# --- Dropout ------------------------------------------------------------------------


class Dropped(nn.Module):
    @nn.compact
    def __call__(self, images, train):
        features = nn.Dense(16)(images.reshape(len(images), -1))
        features = layers.Dropout(0.5, train)(features)
        # As a branch that is left out of whole images.
        features += layers.Dropout(0.5, train, whole=True)(nn.Dense(16)(features))
        return nn.Dense(NUM_CLASSES)(features)


def train_dropped(num_devices=1, batch_size=16, epochs=3, **options):
    """40 images: the last batch of 8 is whole on every device."""
    first = make_state(Dropped(), optimizer="sgd", **options)
    devices = tuple(jax.devices()[:num_devices])
    history = []
    for _, state, metrics in train_epochs(
        first,
        make_data(),
        make_soft_labels(num_views=1),
        make_run_epoch(loss=GIFT, view_images=VIEW_IMAGES, devices=devices),
        first_epoch=0,
        epochs=epochs,
        batch_size=batch_size,
        order_keys=[jax.random.key(4)],
        devices=devices,
    ):
        history.append(metrics.means()["loss"])
    return jax.device_get(state), history


def test_dropout_is_drawn_anew_in_every_step():
    # Without updates, and with one view, only dropout tells one epoch from another.
    _, losses_seen = train_dropped(batch_size=40, learning_rate=0.0)
    assert len(set(losses_seen)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [pytest.param(2, marks=pytest.mark.slow), 8])
def test_any_number_of_devices_drops_the_same(num_devices):
    state, losses_seen = train_dropped()
    other, other_losses = train_dropped(num_devices)
    np.testing.assert_allclose(other_losses, losses_seen, rtol=0, atol=1e-5)
    assert_same_weights(other, state)


# --- The state ----------------------------------------------------------------------


def test_states_of_equal_networks_have_one_structure():
    structures = {jax.tree.structure(make_state(seed=seed)) for seed in (0, 1)}
    assert len(structures) == 1
    assert isinstance(make_state(), TrainState)


@pytest.mark.parametrize(
    ("optimizer", "batch_size", "message"),
    [
        ("adam", 10, "optimizer is 'adam', expected an OptimizerSpec"),
        (OptimizerSpec("adam"), 0, "batch_size is 0, expected at least 1"),
        (
            OptimizerSpec("adam"),
            2.5,
            "batch_size is 2.5, expected at least 1, an integer",
        ),
    ],
)
def test_what_no_student_is_made_with(optimizer, batch_size, message):
    with pytest.raises(InputError, match=message):
        new_student(
            make_model(), optimizer, make_data(), epochs=1, batch_size=batch_size
        )
