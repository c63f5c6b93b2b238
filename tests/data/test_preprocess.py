"""Tests of `gift_jax.data.preprocess`: there and back, for NumPy and for JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax.data.preprocess import Normalization, Whitening
from gift_jax.runtime.errors import InputError

STATISTICS = Normalization((0.5, 0.25, 0.125), (0.5, 0.25, 2))


def whitening(side=4):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(side * side * 3,) * 2)
    return Whitening(
        STATISTICS,
        rng.normal(size=len(matrix)).astype(np.float32),
        matrix.astype(np.float32),
        np.linalg.inv(matrix).astype(np.float32),
    )


def pixels_of(shape=(5, 4, 4, 3)):
    return np.random.default_rng(1).random(shape, np.float32)


def test_normalization_is_that_of_its_formula():
    found = STATISTICS.apply(np.array([[1.0, 0.5, 0.125]]))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[1, 1, 0]])
    np.testing.assert_array_equal(STATISTICS.invert(found), [[1, 0.5, 0.125]])


def test_whitening_is_that_of_its_formula():
    transform, pixels = whitening(), pixels_of()
    flat = np.float64((pixels - STATISTICS.mean) / STATISTICS.std).reshape(5, -1)
    expected = (flat - transform.center) @ transform.matrix.astype(np.float64)
    found = transform.apply(pixels)
    np.testing.assert_allclose(found.reshape(5, -1), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("transform", [STATISTICS, whitening()])
@pytest.mark.parametrize("shape", [(4, 4, 3), (5, 4, 4, 3), (2, 3, 4, 4, 3)])
def test_numpy_and_jax_agree_and_come_back(transform, shape):
    pixels = pixels_of(shape)
    found = transform.apply(pixels)
    assert isinstance(found, np.ndarray) and found.shape == shape
    on_device = transform.apply(jnp.asarray(pixels))
    assert isinstance(on_device, jax.Array) and on_device.dtype == np.float32
    np.testing.assert_allclose(on_device, found, rtol=1e-4, atol=1e-4)
    for inputs in (found, on_device):
        back = transform.invert(inputs)
        assert type(back) is type(inputs) and back.shape == shape
        np.testing.assert_allclose(back, pixels, atol=1e-3)


def test_products_are_in_full_float32_on_every_device():
    """TPUs and GPUs round the factors of a product unless told otherwise."""
    transform = whitening()
    for function in (transform.apply, transform.invert):
        program = str(jax.make_jaxpr(function)(jnp.zeros((2, 4, 4, 3))))
        assert program.count("dot_general") == 1
        assert program.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == 1


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [((0.5,), (1, 1), "differ in length"), ((0.5,), (0,), "must be positive")],
)
def test_statistics_without_a_meaning(mean, std, message):
    with pytest.raises(InputError, match=message):
        Normalization(mean, std)


@pytest.mark.parametrize("array", [np, jnp])
def test_images_of_other_channels_are_not_broadcast(array):
    images = array.zeros((2, 4, 4, 1))
    for function in (STATISTICS.apply, STATISTICS.invert):
        with pytest.raises(InputError, match=r"4, 1\) have 1 channels.*by 3: \("):
            function(images)


def test_matrices_of_other_sizes():
    good = whitening()
    with pytest.raises(InputError, match=r"ZCA inverse has shape \(2, 2\), expected"):
        Whitening(STATISTICS, good.center, good.matrix, np.eye(2))
