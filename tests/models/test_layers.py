"""Layers against PyTorch's definitions, and against one operation after the other."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gift_jax.models import layers, norms
from tests.models.test_norms import assert_trees_near, draw


@pytest.mark.parametrize(
    ("length", "size"), [(1, 7), (2, 7), (7, 7), (9, 7), (14, 7), (5, 3)]
)
def test_adaptive_average_pool_averages_the_windows_of_pytorch(length, size):
    images = np.random.default_rng(0).normal(size=(2, length, length, 3))
    edges = [
        (math.floor(i * length / size), math.ceil((i + 1) * length / size))
        for i in range(size)
    ]
    expected = np.empty((2, size, size, 3))
    for i, (top, bottom) in enumerate(edges):
        for j, (left, right) in enumerate(edges):
            expected[:, i, j] = images[:, top:bottom, left:right].mean((1, 2))
    pool = jax.jit(layers.adaptive_average_pool, static_argnums=1)
    np.testing.assert_allclose(pool(images, size), expected, atol=1e-6)


def test_the_dropout_of_an_image_does_not_depend_on_its_batch():
    dropout, key = layers.Dropout(0.25, train=True), jax.random.key(0)
    x = jnp.ones((40, 3, 50))

    def drop(numbers, **options):
        variables = {"batch": {"numbers": jnp.asarray(numbers)}} if options else {}
        return dropout.apply(variables, x[: len(numbers)], rngs={"dropout": key})

    dropped = drop(range(40))
    assert set(np.unique(dropped)) == {0, np.float32(1 / 0.75)}
    # Binomial(6000, 0.25) has a standard deviation of 34.
    assert abs(np.sum(dropped == 0) - 1500) < 150
    assert np.any(dropped[0] != dropped[1])
    some = [7, 3, 39]
    np.testing.assert_array_equal(drop(some, given=True), dropped[np.array(some)])


@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (3, 2), (1, 2), (7, 2)])
def test_convolutions_are_padded_as_in_pytorch(kernel_size, stride):
    x = np.random.default_rng(0).normal(size=(2, 8, 9, 3)).astype(np.float32)
    conv = layers.conv(4, kernel_size, stride, use_bias=True)
    variables = jax.jit(conv.init)(jax.random.key(0), x)
    kernel = np.asarray(variables["params"]["kernel"], float)
    padding = (kernel_size - 1) // 2
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(
        padded, (kernel_size, kernel_size), axis=(1, 2)
    )[:, ::stride, ::stride]
    expected = np.einsum("bhwcij,ijco->bhwo", windows, kernel)
    np.testing.assert_allclose(jax.jit(conv.apply)(variables, x), expected, atol=1e-5)


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(function, cotangent, *arguments):
    value, pull = jax.vjp(function, *arguments)
    return value, pull(cotangent)


def plain_relu_pool(x, affine):
    batch, height, width, channels = x.shape
    rows, columns = height // 2, width // 2
    active = nn.relu(affine(x))[:, : 2 * rows, : 2 * columns]
    return active.reshape(batch, rows, 2, columns, 2, channels).mean((2, 4))


@settings(max_examples=10, deadline=None)
@given(
    batch=st.integers(1, 3),
    height=st.integers(2, 7),
    width=st.integers(2, 7),
    per_image=st.booleans(),
)
def test_relu_pool_is_relu_then_pool_in_value_and_gradient(
    batch, height, width, per_image
):
    x = draw(0, batch, height, width, 3) - 2
    shape = (batch if per_image else 1, 1, 1, 3)
    affine = norms.Affine(*(draw(seed, *shape) - 2 for seed in (1, 2, 3)))
    cotangent = draw(4, batch, height // 2, width // 2, 3)
    results = []
    for function in (layers.relu_pool_2x2, plain_relu_pool):
        results.append(value_and_gradients(function, cotangent, x, affine))
    assert_trees_near(*results)


@pytest.mark.slow
def test_relu_pool_of_bfloat16_is_bfloat16():
    x = draw(0, 2, 4, 4, 3).astype(jnp.bfloat16)
    affine = norms.Affine(*jnp.ones((3, 1, 1, 1, 3)))
    value, pull = jax.vjp(layers.relu_pool_2x2, x, affine)
    of_x, of_affine = pull(jnp.ones_like(value))
    assert value.dtype == of_x.dtype == jnp.bfloat16
    assert {gradient.dtype for gradient in of_affine} == {jnp.dtype("float32")}
