"""Tests of `gift_jax.distilled.readers.arrays`."""

import pathlib

import numpy as np
import pytest

from gift_jax.data import info
from gift_jax.distilled import zca
from gift_jax.distilled.readers import (
    Request,
    arrays,
)
from gift_jax.distilled.value_space import WHITENED
from tests.distilled.readers.samples import CENTRED, LABELS, RNG, TINY_CIFAR


class TestWhitenedRange:
    # Pictures of large flat areas, as real ones are.
    images = np.clip(
        RNG.normal(128, 60, (800, 1, 1, 3)) + RNG.normal(0, 20, (800, 16, 16, 3)),
        0,
        255,
    ).astype(np.uint8)
    fits = pytest.mark.parametrize("fit", [zca.fit_kornia, zca.fit_rfad])

    def read(self, images, whitening):
        request = Request(pathlib.Path("x"), TINY_CIFAR, train_images=self.images)
        return arrays.learnt_dataset(
            request,
            TINY_CIFAR,
            images,
            CENTRED,
            space=WHITENED,
            fit=lambda train_images: whitening,
        )

    @fits
    def test_whitened_images_pass(self, fit):
        whitening = fit(self.images)
        inputs = whitening.apply(self.images[:20] / np.float32(255))
        assert self.read(inputs, whitening).is_whitened

    @fits
    @pytest.mark.parametrize("value_space", [lambda x: x, info.CIFAR.apply])
    def test_other_images_are_refused(self, fit, value_space):
        images = value_space(self.images[:20] / np.float32(255))
        with pytest.raises(ValueError, match="not whitened, or in another convention"):
            self.read(images, fit(self.images))


class TestHardLabels:
    def test_class_order_survives_labels_that_moved(self):
        learnt = CENTRED.copy()
        learnt[3] = CENTRED[19]  # one label now says another class
        labels, origin = arrays.hard_labels(learnt)
        np.testing.assert_array_equal(labels, LABELS)
        assert origin == "class"

    def test_argmax_of_another_order(self):
        order = np.random.default_rng(1).permutation(20)
        labels, origin = arrays.hard_labels(CENTRED[order])
        np.testing.assert_array_equal(labels, LABELS[order])
        assert origin == "argmax"

    @pytest.mark.parametrize("num_classes", [2, 3])
    def test_shuffled_images_of_few_classes_keep_their_own(self, num_classes):
        # By chance half of two classes' labels agree with the order.
        for seed in range(100):
            rng = np.random.default_rng(seed)
            own = rng.permutation(np.repeat(np.arange(num_classes), 10))
            soft = 4 * np.eye(num_classes)[own] + rng.normal(size=(len(own), 1))
            labels, _ = arrays.hard_labels(soft)
            np.testing.assert_array_equal(labels, own)

    def test_argmax_where_no_more_agree_than_by_chance(self):
        soft = np.eye(2)[[0] * 12 + [1] * 8]  # 18 of 20 agree with the order
        labels, origin = arrays.hard_labels(soft)
        assert origin == "class"
        soft = np.eye(2)[[0] * 16 + [1] * 4]  # 14 of 20
        labels, origin = arrays.hard_labels(soft)
        assert origin == "argmax"
        assert labels.sum() == 4

    def test_argmax_where_counts_differ(self):
        labels, origin = arrays.hard_labels(CENTRED[:19])
        np.testing.assert_array_equal(labels, LABELS[:19])
        assert origin == "argmax"
