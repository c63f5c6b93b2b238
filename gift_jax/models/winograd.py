"""Winograd's minimal filtering for 3x3 convolutions, F(4x4, 3x3).

Lavin and Gray (arXiv 1509.09308), section 4: a tile of 4x4 output pixels is computed
from 6x6 input pixels with 36 multiplications per pair of channels, where the direct
sum takes 144:

    Y = A^T [ (G g G^T) * (B^T d B) ] A

for tiles d, kernels g and the elementwise product *, which becomes 36 matrix products
once it is summed over input channels. Both gradients have the same form. Rounding
errors are a few times those of the direct sum.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

TILE = 4
# The points of interpolation are 0, +-_A, +-_B and infinity. With 1 and 2, as there,
# rounding errors are twice as large (see Barabasz et al., arXiv 1803.10986).
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
    # The gradient of the images is the convolution with the kernel turned around.
    products = jnp.einsum(
        "ijbrsf,ijcf->ijbrsc", _input_tiles(cotangent), _kernels(kernel[::-1, ::-1])
    )
    of_products = _cotangent_tiles(cotangent)
    of_kernels = jnp.einsum("ijbrsc,ijbrsf->ijcf", tiles, of_products)
    of_kernel = jnp.matmul(_KERNELS.T, of_kernels.reshape(len(_KERNELS), -1))
    return _output_pixels(products), of_kernel.reshape(kernel.shape)


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


def _cotangent_tiles(cotangent: jax.Array) -> jax.Array:
    """A dY A^T of all tiles, the transpose of `_output_pixels`."""
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
