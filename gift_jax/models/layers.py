"""Layers whose arithmetic is PyTorch's where Flax's default differs."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gift_jax.models import convolution


def conv(
    features: int,
    kernel_size: int,
    stride: int = 1,
    *,
    use_bias: bool = False,
    **options: Any,
) -> nn.Conv:
    """Square convolution padded by ``(kernel_size - 1) // 2`` on every side.

    Flax's "SAME" pads a convolution of stride 2 at the bottom and right only, which
    samples other pixels than the PyTorch networks do.
    """
    return nn.Conv(
        features,
        (kernel_size, kernel_size),
        strides=stride,
        padding=(kernel_size - 1) // 2,
        use_bias=use_bias,
        conv_general_dilated=convolution.conv,
        **options,
    )


def batch_norm(*, train: bool, **options: Any) -> nn.BatchNorm:
    """Batch norm with the constants of torch.nn.BatchNorm2d.

    PyTorch's momentum 0.1 weighs the new value, Flax's 0.9 the old one. PyTorch keeps
    the unbiased variance of a batch of n values in its running average, Flax the
    biased one, smaller by (n - 1) / n; both normalise by the biased variance.
    """
    return nn.BatchNorm(
        use_running_average=not train, momentum=0.9, epsilon=1e-5, **options
    )


def average_pool_2x2(images: jax.Array) -> jax.Array:
    """Average of 2x2 windows; an odd last row or column is left out.

    Args:
        images: (B, H, W, C) float.

    Returns:
        (B, H // 2, W // 2, C), the dtype of `images`.
    """
    batch, height, width, channels = images.shape
    rows, columns = height // 2, width // 2
    even = images[:, : 2 * rows, : 2 * columns]
    return even.reshape(batch, rows, 2, columns, 2, channels).mean((2, 4))


def adaptive_average_pool(images: jax.Array, size: int) -> jax.Array:
    """Average over a `size` x `size` grid of windows (torch.nn.AdaptiveAvgPool2d).

    Cell i of an axis of length n covers the pixels from floor(i * n / size) to
    ceil((i + 1) * n / size): cells overlap when n is no multiple of `size` and repeat
    pixels when n is smaller.

    Args:
        images: (B, H, W, C) float.
        size: Rows and columns of the result.

    Returns:
        (B, size, size, C), the dtype of `images`.
    """
    for axis in (1, 2):
        length = images.shape[axis]
        cells = [
            jax.lax.slice_in_dim(
                images, i * length // size, -(-(i + 1) * length // size), axis=axis
            ).mean(axis)
            for i in range(size)
        ]
        images = jnp.stack(cells, axis)
    return images
