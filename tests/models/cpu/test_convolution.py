"""The convolution against XLA's own, in value and in both gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gift_jax.models import create_model
from gift_jax.models.cpu import convolution

NHWC = ("NHWC", "HWIO", "NHWC")


def stock(images, kernel, strides, padding, **options):
    return jax.lax.conv_general_dilated(
        images, kernel, strides, padding, dimension_numbers=NHWC, **options
    )


def ours(images, kernel, strides, padding, **options):
    return convolution.conv(
        images, kernel, strides, padding, dimension_numbers=NHWC, **options
    )


def draw(seed, *shape, dtype=jnp.float32):
    values = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(values, dtype)


def assert_equal_with_gradients(images, kernel, *arguments, tolerance=1e-5, **options):
    expected, pull_expected = jax.vjp(
        lambda x, k: stock(x, k, *arguments, **options), images, kernel
    )
    actual, pull_actual = jax.vjp(
        lambda x, k: ours(x, k, *arguments, **options), images, kernel
    )
    cotangent = draw(7, *expected.shape, dtype=expected.dtype)
    pairs = zip(
        (expected, *pull_expected(cotangent)),
        (actual, *pull_actual(cotangent)),
        strict=True,
    )
    for wanted, found in pairs:
        assert found.dtype == wanted.dtype and found.shape == wanted.shape
        wanted = np.asarray(wanted, np.float32)
        scale = max(np.abs(wanted).max(initial=0), 1e-6)
        np.testing.assert_allclose(
            np.asarray(found, np.float32), wanted, rtol=0, atol=tolerance * scale
        )


sizes = st.integers(1, 4)
pairs = st.tuples(st.integers(0, 3), st.integers(0, 3))


@settings(max_examples=8, deadline=None)
@given(
    batch=st.integers(1, 3),
    height=st.integers(4, 9),
    width=st.integers(4, 9),
    channels=sizes,
    features=sizes,
    rows=sizes,
    columns=sizes,
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.one_of(st.sampled_from(["SAME", "VALID"]), st.tuples(pairs, pairs)),
)
def test_value_and_gradients_are_those_of_xla(
    batch, height, width, channels, features, rows, columns, strides, padding
):
    assert_equal_with_gradients(
        draw(0, batch, height, width, channels),
        draw(1, rows, columns, channels, features),
        strides,
        padding,
    )


@pytest.mark.parametrize(
    "options",
    [
        {"feature_group_count": 2},
        {"feature_group_count": 4, "rhs_dilation": (2, 1)},
        {"rhs_dilation": (2, 1)},
        {"lhs_dilation": (1, 2)},
    ],
)
def test_grouped_and_dilated_convolutions_are_the_stock_ones(options):
    groups = options.get("feature_group_count", 1)
    images, kernel = draw(0, 2, 8, 7, 4), draw(1, 3, 3, 4 // groups, 8)
    arguments = ((2, 1), ((1, 1), (0, 2)))
    assert_equal_with_gradients(images, kernel, *arguments, **options)
    jaxpr = jax.make_jaxpr(lambda x, k: ours(x, k, *arguments, **options))
    assert "custom_vjp" not in str(jaxpr(images, kernel))


@settings(max_examples=8, deadline=None)
@given(
    batch=st.integers(1, 3),
    height=st.integers(4, 9),
    width=st.integers(4, 9),
    channels=st.integers(2, 5),
    rows=sizes,
    columns=sizes,
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.one_of(st.sampled_from(["SAME", "VALID"]), st.tuples(pairs, pairs)),
    dtype=st.sampled_from([jnp.float32, jnp.bfloat16]),
)
def test_depthwise_convolutions_are_those_of_xla(
    batch, height, width, channels, rows, columns, strides, padding, dtype
):
    images = draw(0, batch, height, width, channels, dtype=dtype)
    kernel = draw(1, rows, columns, 1, channels, dtype=dtype)
    assert_equal_with_gradients(
        images,
        kernel,
        strides,
        padding,
        feature_group_count=channels,
        tolerance=1e-5 if dtype == jnp.float32 else 2**-6,
    )
    program = jax.jit(
        lambda x, k: ours(x, k, strides, padding, feature_group_count=channels)
    )
    assert "convolution" not in program.lower(images, kernel).as_text()


def test_depthwise_convolutions_of_accelerators_are_those_of_xla():
    images, kernel = draw(0, 2, 6, 6, 5), draw(1, 3, 3, 1, 5)
    function = jax.jit(lambda x, k: ours(x, k, (1, 1), "SAME", feature_group_count=5))
    lowered = function.trace(images, kernel).lower(lowering_platforms=("tpu",))
    assert "convolution" in lowered.as_text()


def test_negative_padding_is_left_to_xla():
    images, kernel = draw(0, 2, 8, 8, 3), draw(1, 3, 3, 3, 4)
    assert_equal_with_gradients(images, kernel, (1, 1), ((-1, 0), (1, 1)))


def test_bfloat16_weight_gradient_is_summed_in_float32():
    images = draw(0, 8, 16, 16, 4, dtype=jnp.bfloat16)
    kernel = draw(1, 3, 3, 4, 8, dtype=jnp.bfloat16)
    cotangent = draw(2, 8, 16, 16, 8, dtype=jnp.bfloat16)

    def gradient(function, *arrays):
        *primals, seed = arrays
        pull = jax.vjp(lambda x, k: function(x, k, (1, 1), "SAME"), *primals)[1]
        return pull(seed)[1]

    found = gradient(ours, images, kernel, cotangent)
    exact = gradient(
        stock, *(a.astype(jnp.float32) for a in (images, kernel, cotangent))
    )
    assert found.dtype == jnp.bfloat16
    # One rounding to 8 bits of mantissa, and no more.
    np.testing.assert_allclose(
        np.asarray(found, np.float32), exact, rtol=2**-8, atol=1e-3
    )


@pytest.mark.slow
def test_under_vmap_of_images_and_kernels():
    images, kernels = draw(0, 3, 2, 6, 6, 2), draw(1, 3, 3, 3, 2, 5)

    def loss(function, image, kernel):
        return jnp.sum(jnp.sin(function(image, kernel, (2, 2), "SAME")))

    def gradients(function):
        return jax.vmap(jax.grad(functools.partial(loss, function), argnums=(0, 1)))

    for found, wanted in zip(
        gradients(ours)(images, kernels), gradients(stock)(images, kernels), strict=True
    ):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_under_pmap_the_mean_gradient_is_that_of_the_whole_batch():
    count = min(jax.local_device_count(), 2)
    images, kernel = draw(0, count, 4, 6, 6, 2), draw(1, 3, 3, 2, 5)

    def gradient(images, kernel):
        def loss(kernel):
            return jnp.mean(jnp.sin(ours(images, kernel, (1, 1), "SAME")))

        return jax.lax.pmean(jax.grad(loss)(kernel), "batch")

    found = jax.pmap(gradient, axis_name="batch", in_axes=(0, None), out_axes=None)(
        images, kernel
    )
    wanted = jax.grad(
        lambda kernel: jnp.mean(
            jnp.sin(stock(images.reshape(-1, 6, 6, 2), kernel, (1, 1), "SAME"))
        )
    )(kernel)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("height", "width", "strides"),
    [(2, 2, (1, 1)), (1, 1, (1, 1)), (1, 2, (1, 1)), (4, 3, (2, 2)), (2, 2, (2, 1))],
)
def test_tiny_maps_of_many_channels_are_one_product(height, width, strides):
    images, kernel = draw(0, 3, height, width, 64), draw(1, 3, 3, 64, 70)
    padding = ((1, 1), (1, 1))
    assert_equal_with_gradients(images, kernel, strides, padding)
    program = jax.jit(ours, static_argnums=(2, 3)).lower(
        images, kernel, strides, padding
    )
    assert "convolution" not in program.as_text()


@pytest.mark.parametrize("platform, products", [("cpu", True), ("tpu", False)])
def test_the_special_gradient_is_lowered_for_cpus_only(platform, products):
    def gradient(images, kernel):
        return jax.grad(lambda k: jnp.sum(ours(images, k, (1, 1), "SAME") ** 2))(kernel)

    images, kernel = draw(0, 2, 6, 6, 2), draw(1, 3, 3, 2, 5)
    lowered = (
        jax.jit(gradient).trace(images, kernel).lower(lowering_platforms=(platform,))
    )
    assert ("dot_general" in lowered.as_text()) == products


@pytest.mark.parametrize("name", ["conv3", "resnet18_modified"])
def test_networks_use_it_and_keep_their_parameters(name):
    options = {"width": 8} if name == "conv3" else {}
    model = create_model(name, num_classes=3, image_size=16, **options)
    images = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    first = {"conv3": "conv0", "resnet18_modified": "conv1"}[name]
    assert set(variables["params"][first]) <= {"kernel", "bias"}
    jaxpr = jax.make_jaxpr(functools.partial(model.apply, train=False))(
        variables, images
    )
    assert "custom_vjp" in str(jaxpr)
