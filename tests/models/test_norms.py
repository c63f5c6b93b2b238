"""Batch and instance norm against Flax's."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax.models import layers, norms


def draw(seed, *shape):
    values = np.random.default_rng(seed).normal(2.0, 3.0, size=shape)
    return jnp.asarray(values, jnp.float32)


def assert_trees_near(found, wanted, tolerance=2e-5):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for ours, theirs in zip(
        jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True
    ):
        scale = max(1.0, float(jnp.abs(theirs).max()))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale)


def flax_batch_norm(train):
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)


def variables(channels):
    return {
        "params": {"scale": draw(1, channels), "bias": draw(2, channels)},
        "batch_stats": {"mean": draw(3, channels), "var": draw(4, channels) ** 2},
    }


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 5, 2)])
def test_batch_norm_is_flaxs_in_value_gradient_and_statistics(train, shape):
    x, state = draw(0, *shape), variables(shape[-1])
    cotangent = draw(5, *shape)

    def loss(module, params, x):
        out, updates = module.apply(
            {"params": params, "batch_stats": state["batch_stats"]},
            x,
            mutable=["batch_stats"],
        )
        return jnp.sum(out * cotangent), (out, updates)

    results = [
        jax.grad(loss, argnums=(1, 2), has_aux=True)(module, state["params"], x)
        for module in (layers.batch_norm(train=train), flax_batch_norm(train))
    ]
    assert_trees_near(*results)


def test_an_offset_is_a_bias_added_before():
    x, offset, state = draw(0, 4, 3, 3, 2), draw(6, 2), variables(2)
    for train in (True, False):
        norm = layers.batch_norm(train=train)
        affine, updates = norm.apply(
            state, x, offset, method="affine", mutable=["batch_stats"]
        )
        wanted, wanted_updates = norm.apply(
            state, x + offset[None, None, None], mutable=["batch_stats"]
        )
        assert_trees_near((affine(x), updates), (wanted, wanted_updates))


def test_initialisation_has_the_names_and_values_of_flax():
    x = draw(0, 4, 3, 3, 2)
    found, wanted = (
        module.init(jax.random.key(0), x)
        for module in (layers.batch_norm(train=True), flax_batch_norm(True))
    )
    assert_trees_near(found, wanted, 0)


def test_result_has_the_dtype_of_the_module_and_statistics_are_float32():
    x = draw(0, 4, 3, 3, 2).astype(jnp.bfloat16)
    norm = layers.batch_norm(train=True, dtype=jnp.bfloat16)
    out, updates = norm.apply(variables(2), x, mutable=["batch_stats"])
    assert out.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(("mean", "deviation"), [(30, 0.1), (100, 0.1), (-1000, 0.1)])
def test_statistics_are_exact_where_the_mean_is_large(mean, deviation):
    # As PyTorch's; E[x^2] - E[x]^2 in float32 is off by 1.5%, 30% and 2000% here.
    x = np.random.default_rng(0).normal(mean, deviation, (8, 32, 32, 4))
    x = x.astype(np.float32)
    wanted = x.mean((0, 1, 2), dtype=float), x.var((0, 1, 2), dtype=float)
    state = variables(4)

    def statistics(x, axis_name=None):
        norm = layers.batch_norm(train=True, axis_name=axis_name)
        _, updates = norm.apply(state, x, mutable=["batch_stats"])
        return updates["batch_stats"]

    alone = jax.jit(statistics)(x)
    over_devices = jax.vmap(functools.partial(statistics, axis_name="d"), axis_name="d")
    split = jax.jit(over_devices)(x.reshape(4, 2, 32, 32, 4))
    for found in (alone, jax.tree.map(lambda a: a[3], split)):
        for name, value in zip(("mean", "var"), wanted, strict=True):
            new = (found[name] - 0.9 * state["batch_stats"][name]) / 0.1
            tolerance = 1e-4 if name == "var" else 1e-6
            # The old value, of a size near one, is rounded into the running one.
            np.testing.assert_allclose(new, value, rtol=tolerance, atol=1e-5)

    affine = norms.InstanceNorm().apply({"params": state["params"]}, x, method="affine")
    factor = np.asarray(state["params"]["scale"]) / np.sqrt(
        x.var((1, 2), dtype=float) + 1e-5
    )
    np.testing.assert_allclose(affine.factor[:, 0, 0], factor, rtol=1e-4)


def test_the_gradient_of_batch_norm_is_exact_where_the_mean_is_large():
    x = np.random.default_rng(0).normal(100, 0.1, (64, 3)).astype(np.float32)
    cotangent = np.asarray(draw(5, 64, 3), float)
    norm = layers.batch_norm(train=True)
    state = {"params": {"scale": jnp.ones(3), "bias": jnp.zeros(3)}}
    state["batch_stats"] = variables(3)["batch_stats"]

    def loss(x):
        out, _ = norm.apply(state, x, mutable=["batch_stats"])
        return jnp.sum(out * cotangent.astype(np.float32))

    # In float64, by the chain rule written out.
    exact = x.astype(float)
    factor = 1 / np.sqrt(exact.var(0) + 1e-5)
    unit = (exact - exact.mean(0)) * factor
    expected = factor * (
        cotangent - cotangent.mean(0) - unit * (cotangent * unit).mean(0)
    )
    np.testing.assert_allclose(
        jax.jit(jax.grad(loss))(x), expected, rtol=1e-3, atol=0.02
    )


def test_instance_norm_is_flaxs():
    x = draw(0, 4, 5, 6, 3)
    params = {"params": variables(3)["params"]}
    affine = norms.InstanceNorm().apply(params, x, method="affine")
    wanted = nn.InstanceNorm(epsilon=1e-5).apply(params, x)
    assert_trees_near(affine(x), wanted)
