"""Depthwise convolutions as sums of products.

XLA's CPU backend (jaxlib 0.10.2) computes a convolution of as many groups as channels
entry by entry, which takes 10 to 50 times as long as these sums, bound by memory.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from gift_jax.models.cpu.windows import Pads, windows


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(
    images: jax.Array, kernel: jax.Array, strides: tuple[int, ...], pads: Pads
) -> jax.Array:
    """Convolution of every channel with a kernel of its own.

    Has reverse-mode derivatives only. Sums are in float32.

    Args:
      images: (B, H, W, C) float.
      kernel: (rows, columns, 1, C), the dtype of `images`.
      strides: Strides of rows and columns.
      pads: Zeros ((top, bottom), (left, right)), not negative.

    Returns:
      (B, H', W', C), the dtype of `images`.
    """
    return _sum_of_products(images, kernel, strides, pads)


def _sum_of_products(
    images: jax.Array, kernel: jax.Array, strides: tuple[int, ...], pads: Pads
) -> jax.Array:
    pixels = windows(images, kernel.shape[:2], strides, pads)
    entries = kernel.reshape(-1, 1, 1, 1, kernel.shape[3]).astype(jnp.float32)
    products = [x * entry for x, entry in zip(pixels, entries, strict=True)]
    return functools.reduce(jnp.add, products).astype(images.dtype)


def _forward(
    images: jax.Array, kernel: jax.Array, strides: tuple[int, ...], pads: Pads
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return conv(images, kernel, strides, pads), (images, kernel)


def _backward(
    strides: tuple[int, ...],
    pads: Pads,
    saved: tuple[jax.Array, jax.Array],
    cotangent: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    images, kernel = saved
    (of_images,) = jax.linear_transpose(
        lambda x: _sum_of_products(x, kernel, strides, pads), images
    )(cotangent)
    return of_images, _kernel_gradient(images, kernel, strides, pads, cotangent)


def _kernel_gradient(
    images: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, ...],
    pads: Pads,
    cotangent: jax.Array,
) -> jax.Array:
    """Sums over the pixels, row by row.

    XLA sums over leading axes at a twentieth of the speed of these additions.
    """
    size = kernel.shape[:2]
    padded = jnp.pad(images, ((0, 0), *pads, (0, 0)))
    batch, height, width, channels = cotangent.shape

    def add_row(row: jax.Array, sums: list[jax.Array]) -> list[jax.Array]:
        rows = lax.dynamic_slice_in_dim(padded, strides[0] * row, size[0], axis=1)
        pixels = windows(rows, size, strides, ((0, 0), (0, 0)))
        ours = lax.dynamic_slice_in_dim(cotangent, row, 1, axis=1)
        ours = ours.astype(jnp.float32)
        return [total + x * ours for total, x in zip(sums, pixels, strict=True)]

    zeros = [jnp.zeros((batch, 1, width, channels), jnp.float32)] * (size[0] * size[1])
    sums = jnp.stack(lax.fori_loop(0, height, add_row, zeros))
    return sums.sum((1, 2, 3)).reshape(kernel.shape).astype(kernel.dtype)


conv.defvjp(_forward, _backward)
