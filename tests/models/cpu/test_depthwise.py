"""Depthwise convolutions by hand; against XLA's own in test_convolution.py."""

import jax
import jax.numpy as jnp
import numpy as np

from gift_jax.models.cpu import depthwise


def test_every_channel_has_a_kernel_of_its_own():
    images = jnp.arange(18.0).reshape(1, 3, 3, 2)
    kernel = jnp.array([[[[1.0, 10.0]], [[2.0, 20.0]]]])  # one row, two columns

    def conv(kernel):
        return depthwise.conv(images, kernel, (1, 1), ((0, 0), (0, 0)))

    pixels, entries = np.asarray(images), np.asarray(kernel)[0, :, 0]
    expected = entries[0] * pixels[:, :, :2] + entries[1] * pixels[:, :, 1:]
    np.testing.assert_array_equal(conv(kernel), expected)
    gradient = jax.grad(lambda k: conv(k).sum())(kernel)
    sums = [images[:, :, :2].sum((0, 1, 2)), images[:, :, 1:].sum((0, 1, 2))]
    np.testing.assert_array_equal(gradient[0, :, 0], sums)
