"""Random views of a batch; all of its images share one draw.

torchvision's transforms do so when they are given a batch, as in the official codes of
SRe2L, CDA, G-VBSM and EDC.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gift_jax.augment import operations
from gift_jax.augment.views import draw_resized_crop


def resized_crop(key: jax.Array, images: jax.Array, min_area: ArrayLike) -> jax.Array:
    """One box for all images, enlarged (torchvision's RandomResizedCrop).

    Args:
      key: Typed key.
      images: (B, H, W, C) float.
      min_area: Smallest area of the box as a fraction of the image, may be traced.

    Returns:
      (B, H, W, C).
    """
    box = draw_resized_crop(key, images.shape[1], images.shape[2], min_area)
    return jax.vmap(lambda image: operations.resized_crop(image, *box))(images)


def flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors all images, or none."""
    return jnp.where(jax.random.bernoulli(key), images[:, :, ::-1], images)


def roll(key: jax.Array, images: jax.Array, low: int, high: int) -> jax.Array:
    """Rolls rows and columns by `low` to `high` pixels, both included."""
    rows, columns = jax.random.randint(key, (2,), low, high + 1)
    return jnp.roll(images, (rows, columns), (1, 2))


def pad_crop(key: jax.Array, images: jax.Array, padding: int) -> jax.Array:
    """One crop for all images, padded by zeros (torchvision's RandomCrop).

    It is a product with matrices of zeros and ones: where a slice of a padded array is
    rolled, what jaxlib 0.10.2 compiles for CPUs hangs or ends with a segmentation
    fault.
    """
    places = jax.random.randint(key, (2,), 0, 2 * padding + 1)
    rows, columns = (
        _shift(place - padding, side)
        for place, side in zip(places, images.shape[1:3], strict=True)
    )
    return jnp.einsum(
        "ih,jw,bhwc->bijc", rows, columns, images, precision=jax.lax.Precision.HIGHEST
    )


def _shift(pixels: jax.Array, side: int) -> jax.Array:
    """(side, side): row i takes what lies `pixels` after it, or nothing."""
    numbers = jnp.arange(side)
    return (numbers[:, None] + pixels == numbers[None]).astype(jnp.float32)
