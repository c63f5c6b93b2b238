"""Lengths by hand, and the last layer of every network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax import models
from gift_jax.diagnostics import lengths
from gift_jax.teachers.flax_teacher import variable_shapes


def test_lengths_by_hand():
    logits = jnp.array([[3.0, 4.0], [1.0, 1.0]], jnp.bfloat16)
    np.testing.assert_allclose(lengths.logit_lengths(logits), [5, 2**0.5], rtol=1e-6)
    centred = lengths.logit_lengths(logits, centred=True)
    np.testing.assert_allclose(centred, [0.5**0.5, 0], rtol=1e-6)


FAMILIES = (
    *("conv3", "resnet18", "resnet20", "wrn", "mobilenet_v2", "efficientnet_b0"),
    *("vgg11", "vit_t_16"),
)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_network_has_one_last_layer(name):
    """Of ones its length is the root of their number."""
    size = 224 if name == "vgg11" else 32
    model = models.create_model(name, num_classes=17, image_size=size)
    shapes = variable_shapes(model, (size, size, 3))["params"]
    (matrix,) = (
        leaf
        for leaf in jax.tree.leaves(shapes)
        if leaf.shape[-1] == 17 and len(leaf.shape) == 2
    )
    ones = jax.tree.map(
        lambda leaf: jnp.ones(leaf.shape if leaf.shape[-1] == 17 else ()), shapes
    )
    weights_and_biases = 17 * (matrix.shape[0] + 1)
    found = lengths.last_layer_length(ones, 17)
    assert found == pytest.approx(weights_and_biases**0.5)


def test_a_network_without_one_has_none():
    matrix = {"kernel": jnp.ones((4, 10))}
    assert lengths.last_layer_length({"a": matrix, "b": matrix}, 10) is None
    assert lengths.last_layer_length({"a": matrix, "scale": jnp.ones(3)}, 11) is None
    assert lengths.last_layer_length({"a": matrix, "block": {"b": matrix}}, 10) == (
        pytest.approx(40**0.5)
    )


def test_the_last_layer_is_told_by_its_outputs():
    params = {
        "hidden": {"kernel": jnp.ones((10, 4))},
        "top": {"kernel": jnp.ones((4, 10))},
    }
    assert lengths.last_layer_length(params, 10) == pytest.approx(40**0.5)
