"""The pixels under every entry of a convolution's kernel."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

Pads = tuple[tuple[int, int], ...]


def sides(
    images: jax.Array, kernel_size: Sequence[int], strides: Sequence[int], pads: Pads
) -> tuple[int, ...]:
    """Height and width of a convolution's result."""
    return tuple(
        (images.shape[1 + axis] + sum(pads[axis]) - kernel_size[axis]) // strides[axis]
        + 1
        for axis in range(2)
    )


def windows(
    images: jax.Array,
    kernel_size: Sequence[int],
    strides: Sequence[int],
    pads: Pads,
) -> list[jax.Array]:
    """The pixels that every entry of a kernel is multiplied with.

    Args:
      images: (B, H, W, C).
      kernel_size: Rows and columns of the kernel.
      strides: Strides of rows and columns.
      pads: Zeros ((top, bottom), (left, right)) of the images.

    Returns:
      (B, H', W', C) for every row and column of the kernel; H' and W' are the height
      and width of the convolution's result.
    """
    height, width = sides(images, kernel_size, strides, pads)
    padded = jnp.pad(images, ((0, 0), *pads, (0, 0)))
    row_stride, column_stride = strides
    last_row = row_stride * (height - 1) + 1
    last_column = column_stride * (width - 1) + 1
    return [
        padded[:, i : i + last_row : row_stride, j : j + last_column : column_stride]
        for i in range(kernel_size[0])
        for j in range(kernel_size[1])
    ]
