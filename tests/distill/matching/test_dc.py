"""DC: the distance of gradients and the loops, against the official formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax import models
from gift_jax.distill import Dc
from gift_jax.distill.matching import base, dc
from tests.distill.matching import smooth
from tests.distill.recovery import networks

# Of one block, as gradients of gradients take long to compile.
MODEL = models.create_model(
    "conv1", num_classes=3, image_size=8, width=4, norm="instance"
)
RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.normal(size=(4, 8, 8, 3)), jnp.float32)


@pytest.fixture(scope="module")
def variables():
    draw = jax.jit(lambda key: base.draw_network(MODEL, key, networks.INFO))
    return draw(jax.random.key(0))


def official(found, expected):
    """`match_loss` of gradients as PyTorch has them: (outputs, everything else)."""
    total = 0.0
    for ours, theirs in zip(found, expected, strict=True):
        if ours.ndim > 1:
            ours, theirs = (g.reshape(-1, g.shape[-1]).T for g in (ours, theirs))
            lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
            total += (1 - (ours * theirs).sum(1) / (lengths + 1e-6)).sum()
    return total


def test_the_distance_and_its_gradient():
    shapes = [(3, 3, 2, 5), (5,), (7, 3)]
    found, expected = ([RNG.normal(size=s) for s in shapes] for _ in range(2))
    value, gradient = jax.value_and_grad(dc.distance)(
        [jnp.float32(g) for g in found], [jnp.float32(g) for g in expected]
    )
    np.testing.assert_allclose(value, official(found, expected), rtol=1e-5)
    np.testing.assert_array_equal(gradient[1], 0)  # vectors are not compared
    for layer in (0, 2):
        index = tuple(s // 2 for s in shapes[layer])
        values = []
        for sign in (1, -1):
            moved = [g.copy() for g in found]
            moved[layer][index] += sign * 1e-5
            values.append(official(moved, expected))
        difference = (values[0] - values[1]) / 2e-5
        np.testing.assert_allclose(gradient[layer][index], difference, 1e-3, 1e-6)


@pytest.mark.slow
def test_gradients_of_gradients(variables):
    """The whole loss by the images, against differences along its gradient."""

    @jax.jit
    def loss(images):
        found, real = (
            dc.gradients(MODEL, variables, x, 1) for x in (images, IMAGES[2:])
        )
        return dc.distance(found, real)

    gradient = jax.jit(jax.grad(loss))(IMAGES[:2])
    length = jnp.linalg.norm(gradient)
    step = 1e-2 * gradient / length
    change = loss(IMAGES[:2] + step) - loss(IMAGES[:2] - step)
    np.testing.assert_allclose(change / 2e-2, length, rtol=3e-2)


def test_loops_are_the_official_ones():
    found = {ipc: Dc(ipc).loops for ipc in (1, 5, 10, 20, 30, 40, 50, 70)}
    assert found == {
        1: (1, 1),
        5: (10, 50),
        10: (10, 50),
        20: (20, 25),
        30: (30, 20),
        40: (40, 15),
        50: (50, 10),
        70: (50, 10),
    }


def test_networks_are_trained_by_sgd_without_momentum(variables):
    labels = jnp.array([0, 1, 2, 0])
    found = jax.jit(lambda v: dc.train(MODEL, v, IMAGES, labels, jax.random.key(0), 2))(
        variables
    )
    slopes = jax.jit(jax.grad(lambda v: dc._cross_entropy(v, MODEL, IMAGES, labels)))
    expected = variables
    for _ in range(2):
        expected = jax.tree.map(lambda w, g: w - 0.01 * g, expected, slopes(expected))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-6), found, expected
    )


def test_a_network_is_trained_on_the_images_until_the_next_is_drawn(monkeypatch):
    model, info, ipc = smooth.MODEL, networks.INFO, 2
    monkeypatch.setattr(Dc, "network", lambda self, info: model)
    monkeypatch.setattr(Dc, "loops", (2, 1))
    distiller = Dc(ipc)
    pixels = RNG.integers(0, 256, (3 * ipc, *info.image_shape), np.uint8)
    real = pixels.reshape(3, ipc, *info.image_shape)
    state = distiller.start(info, pixels)
    step = jax.jit(distiller.make_step(info))
    keys = jax.random.split(jax.random.key(1), 3)

    @jax.jit
    def trained(key, images):
        """One epoch of one batch, whose order does not matter."""
        drawn = base.draw_network(model, key, info)
        labels = jnp.array([0, 0, 1, 1, 2, 2])
        slopes = jax.grad(dc._cross_entropy)(drawn, model, images, labels)
        return jax.tree.map(lambda w, g: w - 0.01 * g, drawn, slopes)

    memories = []
    for done, key in enumerate(keys):
        # The images are the real ones at first, and their gradients as well.
        state, value = step(state, real if done == 0 else 255 - real, key, done)
        assert (abs(value) < 1e-3) if done == 0 else (value > 0.1)
        memories.append(state.memory)
        if done != 1:
            jax.tree.map(
                functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
                state.memory,
                trained(key, state.images),
            )
    # After its last step a network is not trained, as the next is drawn.
    jax.tree.map(np.testing.assert_array_equal, memories[0], memories[1])


@pytest.mark.slow
def test_images_come_nearer_to_the_real_gradients(monkeypatch):
    history = []
    monkeypatch.setattr(Dc, "network", lambda self, info: MODEL)
    Dc(1, iterations=40, learning_rate=5.0).make(
        networks.data(images_per_class=12),
        seed=0,
        on_progress=lambda done, total, **terms: history.append(terms),
    )
    losses = [terms["loss"] for terms in history[1:]]
    assert np.mean(losses[-10:]) < 0.95 * np.mean(losses[:10])
