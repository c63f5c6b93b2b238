"""Winograd's minimal filtering for 3x3 convolutions, F(4x4, 3x3).

Lavin and Gray (arXiv 1509.09308), section 4: a tile of 4x4 output pixels is computed
from 6x6 input pixels with 36 multiplications per pair of channels, where the direct
sum takes 144:

    Y = A^T [ (G g G^T) * (B^T d B) ] A

for tiles d, kernels g and the elementwise product *, which becomes 36 matrix products
once it is summed over input channels. The gradients are the transposes of the three
transforms, with as few multiplications. Rounding errors are a few times those of the
direct sum.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

TILE = 4
# The points of interpolation are 0, +-_A, +-_B and infinity. With 1 and 2, as in the
# paper, rounding errors are twice as large (see Barabasz et al., arXiv 1803.10986).
_A, _B = math.sqrt(1 / 2), math.sqrt(2)
_INPUT = np.array(
    [
        [1, 0, -5 / 2, 0, 1, 0],
        [0, -_A * 2, -2, _A, 1, 0],
        [0, _A * 2, -2, -_A, 1, 0],
        [0, -_B / 2, -1 / 2, _B, 1, 0],
        [0, _B / 2, -1 / 2, -_B, 1, 0],
        [0, 1, 0, -5 / 2, 0, 1],
    ]
)
_KERNEL = np.array(
    [
        [1, 0, 0],
        [-2 / 3, -_A * 2 / 3, -1 / 3],
        [-2 / 3, _A * 2 / 3, -1 / 3],
        [1 / 6, _B / 6, 1 / 3],
        [1 / 6, -_B / 6, 1 / 3],
        [0, 0, 1],
    ]
)
# G on the rows and on the columns of a kernel at once: (36, 9).
_KERNELS = np.kron(_KERNEL, _KERNEL).astype(np.float32)
_OUTPUT = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, _A, -_A, _B, -_B, 0],
        [0, 1 / 2, 1 / 2, 2, 2, 0],
        [0, _A / 2, -_A / 2, _B * 2, -_B * 2, 1],
    ]
)


@jax.custom_vjp
def conv(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """3x3 convolution of stride 1, zero-padded by one pixel on every side.

    Has reverse-mode derivatives only.

    Args:
      images: (B, H, W, C) float32, H and W multiples of `TILE`.
      kernel: (3, 3, C, features) float32.

    Returns:
      (B, H, W, features) float32.
    """
    return _forward(images, kernel)[0]


def _forward(
    images: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    tiles = _input_tiles(images)
    products = jnp.einsum("ijbrsc,ijcf->ijbrsf", tiles, _kernels(kernel))
    return _output_pixels(products), (tiles, kernel)


def _backward(
    saved: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    tiles, kernel = saved
    of_products = _transposed_output(cotangent)
    of_tiles = jnp.einsum("ijbrsf,ijcf->ijbrsc", of_products, _kernels(kernel))
    of_kernels = jnp.einsum("ijbrsc,ijbrsf->ijcf", tiles, of_products)
    of_kernel = jnp.matmul(_KERNELS.T, of_kernels.reshape(len(_KERNELS), -1))
    return _transposed_input(of_tiles), of_kernel.reshape(kernel.shape)


conv.defvjp(_forward, _backward)


def _input_tiles(images: jax.Array) -> jax.Array:
    """B^T d B of all tiles: (6, 6, B, H / 4, W / 4, C)."""
    _, height, width, _ = images.shape
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    by_row = jnp.stack(_combine(_INPUT, _windows(padded, height // TILE, axis=1)))
    windows = _windows(by_row, width // TILE, axis=3)
    return jnp.stack(_combine(_INPUT, windows), axis=1)


def _windows(padded: jax.Array, count: int, axis: int) -> list[jax.Array]:
    """Pixels 0 to 5 of all `count` overlapping windows along an axis."""
    last = TILE * (count - 1) + 1
    return [
        jax.lax.slice_in_dim(padded, i, i + last, TILE, axis) for i in range(TILE + 2)
    ]


def _transposed_input(tiles: jax.Array) -> jax.Array:
    """The transpose of `_input_tiles`: (B, H, W, C)."""
    _, _, batch, rows, columns, channels = tiles.shape
    by_column = _add_windows([tiles[:, j] for j in range(6)], axis=3)
    by_row = jnp.stack(by_column, axis=4).reshape(6, batch, rows, -1, channels)
    pixels = jnp.stack(_add_windows(list(by_row), axis=1), axis=2)
    return pixels.reshape(batch, TILE * rows, TILE * columns, channels)


def _add_windows(arrays: Sequence[jax.Array], axis: int) -> list[jax.Array]:
    """The transpose of `_windows` and `_combine`: pixels 0 to 3 of all tiles.

    The first pixel of a window is the last one of the tile before, and its last pixel
    the first one of the tile after. Pixels outside the image are padding.
    """
    first, *own, last = _combine(_INPUT.T, arrays)
    count = first.shape[axis]
    at_end, at_start = ([(0, 0)] * first.ndim for _ in range(2))
    at_end[axis], at_start[axis] = (0, 1), (1, 0)
    own[0] += jnp.pad(jax.lax.slice_in_dim(last, 0, count - 1, axis=axis), at_start)
    own[-1] += jnp.pad(jax.lax.slice_in_dim(first, 1, count, axis=axis), at_end)
    return own


def _kernels(kernel: jax.Array) -> jax.Array:
    """G g G^T of all pairs of channels: (6, 6, C, features)."""
    transformed = jnp.matmul(_KERNELS, kernel.reshape(9, -1))
    return transformed.reshape(6, 6, *kernel.shape[2:])


def _output_pixels(products: jax.Array) -> jax.Array:
    """A^T M A of all tiles, put together: (B, H, W, features)."""
    _, _, batch, rows, columns, features = products.shape
    by_column = _combine(_OUTPUT, [products[:, j] for j in range(6)])
    by_row = _combine(_OUTPUT, list(jnp.stack(by_column, axis=4)))
    pixels = jnp.stack(by_row, axis=2)
    return pixels.reshape(batch, TILE * rows, TILE * columns, features)


def _transposed_output(cotangent: jax.Array) -> jax.Array:
    """The transpose of `_output_pixels`: (6, 6, B, H / 4, W / 4, features)."""
    batch, height, width, features = cotangent.shape
    rows, columns = height // TILE, width // TILE
    tiles = cotangent.reshape(batch, rows, TILE, width, features)
    by_row = jnp.stack(_combine(_OUTPUT.T, [tiles[:, :, i] for i in range(TILE)]))
    tiles = by_row.reshape(6, batch, rows, columns, TILE, features)
    by_column = _combine(_OUTPUT.T, [tiles[..., j, :] for j in range(TILE)])
    return jnp.stack(by_column, axis=1)


def _combine(matrix: np.ndarray, arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """One sum of multiples of the arrays for each row of the matrix."""
    return [
        functools.reduce(
            jnp.add,
            [
                float(factor) * array
                for factor, array in zip(row, arrays, strict=True)
                if factor
            ],
        )
        for row in matrix
    ]
