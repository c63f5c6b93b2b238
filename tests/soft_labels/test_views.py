"""What a student sees: arrays on devices, and views of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax import augment, streams
from gift_jax.data import preprocess
from gift_jax.distilled import DistilledDataset, Metadata
from gift_jax.runtime.errors import UnknownNameError
from gift_jax.soft_labels import fkd, views

NORMALIZATION = preprocess.Normalization((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)


def make_dataset(images, transform=NORMALIZATION) -> DistilledDataset:
    return DistilledDataset(
        images=images.astype(np.float32),
        labels=np.arange(10) % 5,
        metadata=Metadata("made", 5, "random", "test"),
        preprocess=transform,
    )


def test_eight_bit_images_stay_eight_bit_and_give_the_same_inputs(pixels):
    dataset = make_dataset(pixels.astype(np.float32) / 255)
    data, normalization = views.train_data(dataset, seed=3)
    assert data.images.dtype == jnp.uint8
    np.testing.assert_array_equal(data.images, pixels)
    np.testing.assert_array_equal(data.labels, dataset.labels)
    key = streams.stream_key(3, streams.Purpose.VIEWS)
    np.testing.assert_array_equal(
        jax.random.key_data(data.view_key), jax.random.key_data(key)
    )
    made = views.AugmentedViews(augment.AugmentSpec(), normalization)
    view = views.View(np.int32(0), np.zeros((10, 5)))
    np.testing.assert_allclose(
        made(data, view, jnp.arange(10)), dataset.inputs(), atol=1e-6
    )


@pytest.mark.parametrize("shift", [0.3, 1e-4])
def test_other_images_are_kept_as_inputs(pixels, shift):
    dataset = make_dataset(pixels / 255 + shift)
    data, normalization = views.train_data(dataset, seed=0)
    assert normalization is None
    np.testing.assert_array_equal(data.images, dataset.inputs())


def test_whitened_images_are_kept_as_inputs(pixels):
    eye = np.eye(8 * 8 * 3, dtype=np.float32)
    whitening = preprocess.Whitening(
        NORMALIZATION, np.zeros(len(eye), np.float32), matrix=2 * eye, inverse=eye / 2
    )
    dataset = make_dataset(whitening.apply(pixels.astype(np.float32) / 255), whitening)
    data, normalization = views.train_data(dataset, seed=0)
    assert normalization is None
    np.testing.assert_array_equal(data.images, dataset.images)


@pytest.mark.parametrize("mix", ["none", "mixup"])
@pytest.mark.parametrize("label_mix", views.LABEL_MIXES)
@pytest.mark.parametrize("has_soft", [True, False])
def test_which_labels_of_mixed_pictures_are_mixed(pixels, mix, label_mix, has_soft):
    data, normalization = views.train_data(make_dataset(pixels / np.float32(255)), 0)
    spec = augment.AugmentSpec(mix=mix)
    made = views.AugmentedViews(spec, normalization, label_mix)
    logits = np.random.default_rng(1).normal(size=(10, 5)) if has_soft else None
    chosen = jnp.array([3, 7, 1])
    found = made.mix(data, views.View(np.int32(4), logits), chosen)
    if mix == "none" or (label_mix == "none" and has_soft):
        assert found is None
        return
    partners, weights = augment.mix_partners(
        data.view_key, 10, 4, chosen, spec, (8, 8, 3)
    )
    np.testing.assert_array_equal(found.labels, data.labels[partners])
    np.testing.assert_array_equal(found.weights, weights)
    if not has_soft:
        assert found.logits is None
        return
    expected = partners if label_mix == "both" else chosen
    np.testing.assert_array_equal(found.logits, logits[expected])


@pytest.mark.parametrize("label_mix", ["soft", "Both", ""])
def test_a_misspelt_label_mix_is_refused(label_mix):
    with pytest.raises(UnknownNameError, match="label_mix"):
        views.AugmentedViews(augment.AugmentSpec(), None, label_mix)
    with pytest.raises(UnknownNameError, match="label_mix"):
        views.ReplayedViews(None, label_mix)


def test_soft_labels_of_replayed_views_are_not_mixed():
    with pytest.raises(UnknownNameError, match="'both'"):
        views.ReplayedViews(None, "both")


@pytest.mark.parametrize("mix", ["none", "mixup", "cutmix"])
def test_replayed_views_are_normalised_after_replaying(pixels, mix):
    data, normalization = views.train_data(make_dataset(pixels / np.float32(255)), 0)
    view = fkd.FkdView(
        mix=mix,
        crops=np.tile(np.float32([0, 0, 1, 1]), (10, 1)),
        flips=np.arange(10) % 2 == 1,
        partners=np.roll(np.arange(10), 1).astype(np.int32),
        lam=np.linspace(0.1, 0.9, 10, dtype=np.float32),
        boxes=np.tile(np.int32([0, 0, 2, 8]), (10, 1)),
        logits=np.random.default_rng(1).normal(size=(10, 5)),
    )
    chosen = np.array([3, 4])
    flipped = np.where(view.flips[:, None, None, None], pixels[:, :, ::-1], pixels)
    expected = flipped[chosen].astype(np.float32)
    others, weights = flipped[view.partners[chosen]], view.lam[chosen]
    if mix == "mixup":
        own = weights[:, None, None, None]
        expected = own * expected + (1 - own) * others
    elif mix == "cutmix":
        expected[:, :2] = others[:, :2]
        weights = [0.75, 0.75]  # the partner's box covers the upper quarter
    replayed = views.ReplayedViews(normalization, "hard")
    mixed = replayed.mix(data, view, jnp.asarray(chosen))
    if mix == "none":
        assert mixed is None
    else:
        np.testing.assert_array_equal(mixed.labels, data.labels[chosen - 1])
        np.testing.assert_array_equal(mixed.weights, weights)
        np.testing.assert_array_equal(mixed.logits, view.logits[chosen])
    assert views.ReplayedViews(normalization).mix(data, view, chosen) is None
    found = replayed(data, view, jnp.asarray(chosen))
    inputs = NORMALIZATION.apply(expected / 255)
    np.testing.assert_allclose(found, inputs, atol=1e-5)
    # Images that are inputs already are replayed only.
    plain = data.replace(images=jnp.asarray(inputs[0])[None].repeat(10, axis=0))
    found = views.ReplayedViews(None)(plain, view.replace(mix="none"), chosen[1:])
    np.testing.assert_allclose(found[0], inputs[0], atol=1e-5)
