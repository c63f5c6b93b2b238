"""Winograd's convolution against the direct one in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gift_jax.models.cpu import convolution, winograd


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def direct(images, kernel):
    """The sum of the definition, in the dtype of its arguments."""
    _, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(
        padded[:, i : i + height, j : j + width] @ kernel[i, j]
        for i in range(3)
        for j in range(3)
    )


def direct_gradients(images, kernel, cotangent):
    """Those of the sum of direct(images, kernel) * cotangent."""
    _, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    of_kernel = np.stack(
        [
            [
                np.einsum(
                    "bhwc,bhwf->cf",
                    padded[:, i : i + height, j : j + width],
                    cotangent,
                )
                for j in range(3)
            ]
            for i in range(3)
        ]
    )
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    return direct(cotangent, turned), of_kernel


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(conv, images, kernel, cotangent):
    value, pull = jax.vjp(conv, images, kernel)
    return value, pull(cotangent)


def assert_near(found, wanted, tolerance):
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * scale)


quarters = st.integers(1, 3)
channels = st.integers(1, 5)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 3), quarters, quarters, channels, channels)
def test_value_and_gradients_are_those_of_the_definition(
    batch, rows, columns, channels, features
):
    images = draw(0, batch, 4 * rows, 4 * columns, channels)
    kernel = draw(1, 3, 3, channels, features)
    cotangent = draw(2, batch, 4 * rows, 4 * columns, features)
    single = [jnp.asarray(a, jnp.float32) for a in (images, kernel, cotangent)]
    value, gradients = value_and_gradients(winograd.conv, *single)
    assert_near(value, direct(images, kernel), 1e-5)
    for found, wanted in zip(
        gradients, direct_gradients(images, kernel, cotangent), strict=True
    ):
        assert_near(found, wanted, 1e-5)


@pytest.mark.parametrize("channels", [32, 256])
def test_rounding_errors_stay_near_those_of_the_direct_sum(channels):
    images = draw(0, 2, 16, 16, channels)
    kernel = draw(1, 3, 3, channels, 32)
    exact = direct(images, kernel)
    ours = jax.jit(winograd.conv)(jnp.asarray(images), jnp.asarray(kernel))
    direct_error = np.abs(direct(*map(np.float32, (images, kernel))) - exact).std()
    error = np.abs(ours - exact).std()
    assert error < 3e-6 * exact.std()
    assert error < 20 * direct_error


def uses_winograd(image_shape, kernel_shape, strides=(1, 1), padding="SAME", **options):
    images, kernel = (
        jax.ShapeDtypeStruct(shape, options.get("dtype", jnp.float32))
        for shape in (image_shape, kernel_shape)
    )

    def conv(images, kernel):
        return convolution.conv(
            images,
            kernel,
            strides,
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    platform = options.get("platform", "cpu")
    lowered = jax.jit(conv).trace(images, kernel).lower(lowering_platforms=(platform,))
    return "stablehlo.convolution" not in lowered.as_text()


def test_it_is_taken_on_cpus_for_the_shapes_it_is_faster_at():
    image, kernel = (50, 16, 16, 128), (3, 3, 128, 128)
    assert uses_winograd(image, kernel)
    assert uses_winograd(image, kernel, padding=((1, 1), (1, 1)))
    assert not uses_winograd(image, kernel, platform="tpu")
    assert not uses_winograd(image, kernel, platform="cuda")
    assert not uses_winograd(image, kernel, dtype=jnp.bfloat16)
    assert not uses_winograd(image, kernel, strides=(2, 2))
    assert not uses_winograd(image, kernel, padding="VALID")
    assert not uses_winograd(image, (5, 5, 128, 128))
    assert not uses_winograd((50, 14, 16, 128), kernel)
    assert not uses_winograd((50, 32, 32, 3), (3, 3, 3, 128))
    assert not uses_winograd(image, (3, 3, 128, 16))
    assert not uses_winograd((1, 16, 16, 128), kernel)


def test_gradients_of_the_convolution_that_chooses_it():
    images, kernel = draw(0, 8, 8, 8, 32), draw(1, 3, 3, 32, 32)
    cotangent = draw(2, 8, 8, 8, 32)

    def conv(images, kernel):
        return convolution.conv(
            images,
            kernel,
            (1, 1),
            ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    single = [jnp.asarray(a, jnp.float32) for a in (images, kernel, cotangent)]
    _, gradients = value_and_gradients(conv, *single)
    for found, wanted in zip(
        gradients, direct_gradients(images, kernel, cotangent), strict=True
    ):
        assert_near(found, wanted, 1e-5)


@pytest.mark.slow
def test_students_under_vmap():
    images, kernels = draw(0, 2, 8, 8, 8, 32), draw(1, 2, 3, 3, 32, 32)

    def loss(images, kernel):
        return jnp.sum(jnp.sin(winograd.conv(images, kernel)))

    single = jnp.asarray(images, jnp.float32), jnp.asarray(kernels, jnp.float32)
    gradients = jax.grad(loss, argnums=(0, 1))
    together = jax.jit(jax.vmap(gradients))(*single)
    for i in range(2):
        alone = jax.jit(gradients)(single[0][i], single[1][i])
        for found, wanted in zip(together, alone, strict=True):
            assert_near(found[i], wanted, 1e-5)
