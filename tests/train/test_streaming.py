"""Streamed train splits: equal to resident ones, and bounded in memory."""

import contextlib
import threading

import jax
import numpy as np
import pytest

from gift_jax import augment
from gift_jax.soft_labels import views
from gift_jax.train.epochs import make_run_epoch, train_epochs
from gift_jax.train.streaming import StreamedData, StreamedViews
from tests.train.training import (
    CE,
    NORMALIZATION,
    SIDE,
    assert_same_weights,
    assert_trees_equal,
    make_data,
    make_state,
)


class Split:
    """An `ImageSplit` that notes what is read of it."""

    def __init__(self, images):
        self._images = np.asarray(images)
        self.read = []
        self._lock = threading.Lock()

    def __len__(self):
        return len(self._images)

    def images(self, indices, *, threads=None):
        with self._lock:
            self.read.append(np.asarray(indices).tolist())
        return self._images[np.asarray(indices)]


def streamed(data):
    return StreamedData(data.labels, data.view_key, Split(data.images))


def train(
    data,
    view_images,
    *,
    num_devices=1,
    epochs=2,
    batch_size=16,
    stop=None,
    whole=None,
):
    devices = tuple(jax.devices()[:num_devices])
    history = []
    for _, state, metrics in train_epochs(
        make_state(),
        data,
        None,
        make_run_epoch(loss=CE, view_images=view_images, devices=devices, whole=whole),
        first_epoch=0,
        epochs=epochs,
        batch_size=batch_size,
        order_keys=[jax.random.key(4)],
        devices=devices,
        stop=stop,
    ):
        history.append(metrics.values["loss"])
    return jax.device_get(state), np.array(history)


@pytest.mark.parametrize(
    ("mix", "num_devices"),
    [("none", 1), pytest.param("cutmix", 2, marks=pytest.mark.slow)],
)
def test_streamed_training_is_resident_training_to_the_last_bit(mix, num_devices):
    spec = augment.AugmentSpec(pad_crop=1, flip=True, mix=mix)
    data = make_data()
    resident, losses_seen = train(
        data, views.AugmentedViews(spec, NORMALIZATION), num_devices=num_devices
    )
    other, other_losses = train(
        streamed(data), StreamedViews(spec, NORMALIZATION), num_devices=num_devices
    )
    np.testing.assert_array_equal(other_losses, losses_seen)
    assert_trees_equal(other.variables, resident.variables)
    assert_trees_equal(other.opt_state, resident.opt_state)


def test_streamed_steps_can_be_one_program_as_on_accelerators():
    spec = augment.AugmentSpec(pad_crop=1, flip=True)
    data = make_data()
    in_parts, losses_in_parts = train(data, views.AugmentedViews(spec, NORMALIZATION))
    whole, losses_seen = train(
        streamed(data), StreamedViews(spec, NORMALIZATION), num_devices=2, whole=True
    )
    np.testing.assert_allclose(losses_seen, losses_in_parts, atol=1e-5)
    assert_same_weights(whole, in_parts)


def test_every_image_is_read_once_an_epoch_and_not_long_before_its_use():
    data = streamed(make_data())
    ahead, used = [], []

    def stop(sizes):
        used.append(int(sizes.sum()))
        ahead.append(sum(map(len, data.split.read)) - sum(used))
        return False

    view_images = StreamedViews(augment.AugmentSpec(), NORMALIZATION)
    train(data, view_images, stop=stop, batch_size=4)
    assert used == [4] * 20
    read = np.concatenate(data.split.read)
    np.testing.assert_array_equal(np.sort(read), np.repeat(np.arange(40), 2))
    # Two batches, of ten an epoch.
    assert max(ahead) <= 8


def test_each_host_reads_the_images_of_its_own_devices():
    data = streamed(make_data())
    batches = [np.array([[3, 1], [4, 0]]), np.array([[5, 9, 2]] * 2)]
    devices = jax.devices()[:2]
    spec = augment.AugmentSpec(mix="mixup")
    with contextlib.closing(data.of_batches(batches, 7, spec, devices)) as parts:
        first, rest = (jax.device_get(part.images) for part in parts)
    assert first.shape == (2, 2, 2, SIDE, SIDE, 3) and rest.shape[:3] == (2, 2, 3)
    pixels = np.asarray(make_data().images)
    for images, indices in zip((first, rest), batches, strict=True):
        np.testing.assert_array_equal(images[:, 0], pixels[indices])
        partners = jax.jit(
            lambda indices: augment.mix_partners(
                data.view_key, 40, 7, indices, spec, (SIDE, SIDE, 3)
            )[0]
        )(indices.ravel())
        np.testing.assert_array_equal(
            images[:, 1], pixels[np.reshape(partners, indices.shape)]
        )
