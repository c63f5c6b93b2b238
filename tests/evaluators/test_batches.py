"""Places of images in batches that hosts share; the rest is in test_accuracy.py."""

import gc
import weakref

import jax
import numpy as np
import pytest

from gift_jax.evaluators import batches
from gift_jax.runtime import hosts
from tests.evaluators.test_accuracy import random_split


@pytest.mark.parametrize("num_devices", [1, 4])
@pytest.mark.parametrize("size", [1, 8, 37])
def test_places_are_those_of_the_images(size, num_devices):
    split = random_split(size)
    found = batches.SplitBatches(
        split, devices=jax.devices()[:num_devices], batch_size=8
    )
    labels = np.concatenate([np.ravel(labels) for _, labels in found])
    np.testing.assert_array_equal(found.places >= 0, labels >= 0)
    np.testing.assert_array_equal(
        labels[found.places >= 0], split.labels[found.places[found.places >= 0]]
    )


def test_places_of_several_hosts_hold_every_image_once(monkeypatch):
    split = random_split(37)
    found = batches.SplitBatches(split, devices=jax.devices()[:1], batch_size=8)
    monkeypatch.setattr(hosts, "count", lambda: 3)
    places = found.places.reshape(-1, 3, 8)
    assert sorted(places[places >= 0]) == list(range(37))
    # A host reads the contiguous part of `hosts.share`.
    for host in range(3):
        own = places[:, host][places[:, host] >= 0]
        np.testing.assert_array_equal(
            own, np.arange(37 * host // 3, 37 * (host + 1) // 3)
        )


def test_who_looks_at_a_split_shares_its_images_as_long_as_anybody_does():
    def shared(split, batch_size=8):
        return batches.shared_batches(split, tuple(jax.devices()[:2]), batch_size, None)

    split = random_split(37)
    first = shared(split)
    assert shared(split) is first
    assert shared(split, 16) is not first and shared(random_split(37)) is not first
    kept = weakref.ref(first)
    del first
    gc.collect()
    assert kept() is None
