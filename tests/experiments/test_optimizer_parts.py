"""Muon, AdamW and what lies between them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.optimizer_parts import VARIANTS, parts
from gift_jax import optimizers

SHAPES = {"first": (3, 3, 3, 8), "hidden": (3, 3, 8, 8), "last": (8, 5), "bias": (5,)}
RNG = np.random.default_rng(0)
PARAMS, *GRADIENTS = (
    {n: jnp.asarray(RNG.normal(size=s), jnp.float32) for n, s in SHAPES.items()}
    for _ in range(4)
)


def updates_of(transformation):
    """Those of three steps, the rate falling."""
    state, found = transformation.init(PARAMS), []
    for gradients in GRADIENTS:
        updates, state = transformation.update(gradients, state, PARAMS)
        found.append(updates)
    return found


def published(name, rate):
    spec = optimizers.OptimizerSpec(name, weight_decay=0.0)
    return updates_of(optimizers.OPTIMIZERS[name].build(spec, falling(rate)))


def falling(rate):
    return optax.exponential_decay(rate, 1, 0.5)


MUON, ADAMW = published("muon", 0.02), published("adamw", 1e-3)


def direction(x):
    return np.asarray(x / jnp.linalg.norm(x))


@pytest.mark.parametrize("layer", ["first", "hidden", "last"])
@pytest.mark.parametrize(
    ("taken", "of_direction", "of_length"),
    [
        ("muon", MUON, MUON),
        ("adamw", ADAMW, ADAMW),
        ("muon_direction", MUON, ADAMW),
        ("muon_length", ADAMW, MUON),
    ],
)
def test_each_layer_takes_its_direction_and_length(
    layer, taken, of_direction, of_length
):
    found = updates_of(parts(falling(0.02), **{layer: taken}))
    for ours, muon, pointing, long in zip(
        found, MUON, of_direction, of_length, strict=True
    ):
        np.testing.assert_allclose(
            direction(ours[layer]), direction(pointing[layer]), atol=1e-5
        )
        length, expected = (jnp.linalg.norm(x[layer]) for x in (ours, long))
        np.testing.assert_allclose(length, expected, rtol=1e-5)
        for other in SHAPES.keys() - {layer}:
            np.testing.assert_array_equal(ours[other], muon[other])


def test_a_gradient_of_zeros_moves_nothing():
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    for taken in ("muon_direction", "muon_length"):
        of_all = parts(falling(0.02), first=taken, hidden=taken, last=taken)
        updates, _ = of_all.update(zeros, of_all.init(PARAMS), PARAMS)
        assert all(np.array_equal(u, np.zeros_like(u)) for u in updates.values())


def test_another_word_is_refused():
    with pytest.raises(ValueError, match="last is 'sgd', expected one of"):
        parts(falling(0.02), last="sgd")


def test_the_variants_are_all_different():
    assert len(set(VARIANTS)) == len(VARIANTS) == 8
