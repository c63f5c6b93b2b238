"""The pixels under every entry of a convolution's kernel."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

Pads = tuple[tuple[int, int], ...]


def windows(
    images: jax.Array,
    kernel_size: Sequence[int],
    strides: Sequence[int],
    pads: Pads,
    sides: Sequence[int],
) -> list[jax.Array]:
    """The pixels that every entry of a kernel is multiplied with.

    Args:
      images: (B, H, W, C).
      kernel_size: Rows and columns of the kernel.
      strides: Strides of rows and columns.
      pads: Zeros ((top, bottom), (left, right)) of the images.
      sides: Height H' and width W' of the convolution's result.

    Returns:
      (B, H', W', C) for every row and column of the kernel.
    """
    padded = jnp.pad(images, ((0, 0), *pads, (0, 0)))
    row_stride, column_stride = strides
    last_row = row_stride * (sides[0] - 1) + 1
    last_column = column_stride * (sides[1] - 1) + 1
    return [
        padded[:, i : i + last_row : row_stride, j : j + last_column : column_stride]
        for i in range(kernel_size[0])
        for j in range(kernel_size[1])
    ]
