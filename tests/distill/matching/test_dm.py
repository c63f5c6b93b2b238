"""DM: mean features, against the classifier they feed, and the distance of NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax import models
from gift_jax.distill import Dm
from gift_jax.distill.matching import base, dm
from tests.distill.matching import smooth
from tests.distill.recovery import networks

MODEL = models.create_model(
    "conv1", num_classes=3, image_size=8, width=4, norm="instance"
)


@pytest.fixture(scope="module")
def case():
    variables = jax.jit(lambda key: base.draw_network(MODEL, key, networks.INFO))(
        jax.random.key(0)
    )
    images = np.random.default_rng(0).normal(size=(2, 3, 8, 8, 3)).astype(np.float32)
    return variables, images


def test_features_are_what_the_classifier_is_fed(case):
    variables, images = case
    found = jax.jit(lambda x: dm.features(MODEL, variables, x))(images[0])
    last = variables["params"]["classifier"]
    logits = MODEL.apply(variables, images[0], train=False)
    np.testing.assert_allclose(
        found @ last["kernel"] + last["bias"][None], logits, 1e-5, 1e-6
    )


def test_the_loss_and_its_gradient(case):
    variables, images = case
    means = jax.jit(lambda x: dm.class_means(MODEL, variables, x))
    features = [
        np.float64(jax.jit(lambda x: dm.features(MODEL, variables, x))(x))
        for x in images
    ]
    found = means(images)
    np.testing.assert_allclose(found, [f.mean(0) for f in features], 1e-5, 1e-6)
    expected = np.random.default_rng(1).normal(size=found.shape)
    np.testing.assert_allclose(
        dm.distance(found, expected), ((np.float64(found) - expected) ** 2).sum(), 1e-5
    )

    @jax.jit
    def loss(images):
        return dm.distance(dm.class_means(MODEL, variables, images), expected)

    gradient = jax.grad(loss)(images)
    direction = np.float32(gradient / jnp.linalg.norm(gradient))
    step = 1e-2
    change = loss(images + step * direction) - loss(images - step * direction)
    np.testing.assert_allclose(change / (2 * step), jnp.linalg.norm(gradient), 2e-2)


def test_all_images_are_augmented_alike():
    image = np.random.default_rng(0).normal(size=(8, 8, 3)).astype(np.float32)
    images = np.broadcast_to(image, (2, 3, 8, 8, 3))
    augment = jax.jit(dm.augment)
    seen = [augment(key, images) for key in jax.random.split(jax.random.key(0), 8)]
    for batch in map(np.asarray, seen):
        assert batch.shape == images.shape
        np.testing.assert_array_equal(batch, np.broadcast_to(batch[0, 0], batch.shape))
    assert len({np.asarray(batch).tobytes() for batch in seen}) > 4


def test_images_are_augmented_each_by_itself_where_they_are_not_alike():
    """By one operation: of DATM, where of several images each has its parameters."""
    image = np.random.default_rng(0).normal(size=(8, 8, 3)).astype(np.float32)
    images = np.broadcast_to(image, (12, 8, 8, 3))
    augment = jax.jit(functools.partial(dm.augment, alike=False))
    seen = [augment(key, images) for key in jax.random.split(jax.random.key(0), 20)]
    kinds = [len({one.tobytes() for one in np.asarray(batch)}) for batch in seen]
    assert min(kinds) == 2  # flipped, or not
    assert max(kinds) == 12


def test_real_and_distilled_images_are_augmented_alike(monkeypatch):
    def brightness(key, images, **_):
        return (0.5 + jax.random.uniform(key)) * images

    monkeypatch.setattr(dm, "augment", brightness)
    monkeypatch.setattr(Dm, "network", lambda self, info: smooth.MODEL)
    distiller, info = Dm(2), networks.INFO
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, *info.image_shape), np.uint8)
    real = pixels.reshape(3, 2, *info.image_shape)
    step = jax.jit(distiller.make_step(info))
    state, key = distiller.start(info, pixels), jax.random.key(1)
    assert float(step(state, real, key, 0)[1]) == pytest.approx(0, abs=1e-6)
    assert float(step(state, 255 - real, key, 0)[1]) > 0.1


def test_images_come_nearer_to_the_real_means(monkeypatch):
    history = []
    monkeypatch.setattr(Dm, "network", lambda self, info: MODEL)
    monkeypatch.setattr(dm, "augment", lambda key, images: images)
    data = networks.data(images_per_class=12)
    Dm(1, iterations=40, learning_rate=0.3, batch_size=12).make(
        data, seed=0, on_progress=lambda done, total, **terms: history.append(terms)
    )
    losses = [terms["loss"] for terms in history[1:]]
    assert np.mean(losses[-10:]) < 0.75 * losses[0]
