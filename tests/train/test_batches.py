"""The order of an epoch, and batches over devices."""

import dataclasses

import jax
import numpy as np
import pytest

from gift_jax import specs
from gift_jax.configs import digits
from gift_jax.train import batches


def epoch_batches(keys, epoch, num_images, *, batch_size, num_devices):
    order = batches.epoch_order(keys, epoch, num_images)
    return batches.epoch_batches(order, batch_size=batch_size, num_devices=num_devices)


def test_batches_cover_every_image_once_an_epoch_in_an_order_of_their_own():
    key = jax.random.key(0)

    def make(epoch):
        return epoch_batches(key, epoch, 23, batch_size=8, num_devices=4)

    first, second = make(0), make(1)
    assert first.full.shape == (2, 4, 2)
    assert first.rest is not None and first.rest.shape == (4, 7)
    assert (first.rest == first.rest[0]).all()
    seen = np.concatenate([first.full.ravel(), first.rest[0]])
    np.testing.assert_array_equal(np.sort(seen), np.arange(23))
    assert not np.array_equal(first.full, second.full)
    np.testing.assert_array_equal(make(0).full, first.full)


def test_the_order_of_an_epoch_remains_what_it_was():
    order = batches.epoch_order(jax.random.key(0), 1, 100)
    np.testing.assert_array_equal(order[:8], [98, 43, 22, 94, 86, 49, 0, 45])


@pytest.mark.parametrize(
    ("num_images", "batch_size"),
    # Official: N<=10: 10; <=500: 50; <=20000: 100; above: 200 (evaluator_benchmark.py).
    [(1, 10), (10, 10), (11, 50), (500, 50), (501, 100), (20_000, 100), (20_001, 200)],
)
def test_official_batch_size(num_images, batch_size):
    assert batches.official_batch_size(num_images) == batch_size


def test_indivisible_batch_names_the_nearest_sizes():
    with pytest.raises(ValueError, match=r"batch of 50 .* 8 devices.* 48 and 56"):
        batches.check_batch_size(50, 8)
    with pytest.raises(ValueError, match="nearest sizes that do are 8 "):
        batches.check_batch_size(3, 8)
    batches.check_batch_size(48, 8)


@pytest.mark.parametrize(
    ("batch_size", "available", "used"),
    [(50, 8, 5), (50, 4, 2), (100, 8, 5), (10, 1, 1)],
)
def test_a_batch_is_spread_over_as_many_devices_as_it_divides_over(
    batch_size, available, used
):
    devices = jax.devices()[:available]
    assert batches.devices_for(batch_size, devices) == tuple(devices[:used])


@pytest.mark.parametrize("num_images", [23, 24])
def test_batches_of_several_students_are_those_of_each(num_images):
    keys = jax.random.split(jax.random.key(0), 3)

    def make(keys):
        return epoch_batches(keys, 2, num_images, batch_size=8, num_devices=4)

    together = make(keys)
    shape = (num_images // 8, 4, 3, 2)
    assert (together.students, together.full.shape) == ((3,), shape)
    for place, key in enumerate(keys):
        alone = make(key)
        assert alone.students == ()
        np.testing.assert_array_equal(together.full[:, :, place], alone.full)
        np.testing.assert_array_equal(together.sizes, alone.sizes)
        if alone.rest is None:
            assert together.rest is None
        else:
            np.testing.assert_array_equal(together.rest[:, place], alone.rest)


@pytest.mark.parametrize(
    ("asked", "num_images", "num_hosts", "expected"),
    [
        (0, 100, 1, (50, 5)),
        (0, 100, 2, (50, 5)),
        (64, 100, 1, (64, 8)),
        (100, 100, 1, (100, 5)),  # of protocols
        (3, 100, 1, (3, 3)),
        (32, 100, 4, (32, 8)),
    ],
)
def test_batches_of_students(asked, num_images, num_hosts, expected):
    train = specs.expand(digits.get_config())[0].train
    size = dataclasses.replace(train, batch_size=asked).batch_size_for(num_images)
    used = batches.devices_used(size, local_devices=8, num_hosts=num_hosts)
    assert (size, used) == expected


def test_a_batch_that_does_not_divide_over_the_hosts_is_refused():
    with pytest.raises(ValueError, match=r"50 does not divide over 4 hosts.*--shard"):
        batches.devices_used(50, local_devices=4, num_hosts=4)
