"""Layers whose arithmetic is PyTorch's where Flax's default differs."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gift_jax.models import norms
from gift_jax.models.cpu import convolution


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


def batch_norm(*, train: bool, **options: Any) -> norms.BatchNorm:
    """Batch norm that normalises by the statistics of the batch while training."""
    return norms.BatchNorm(use_running_average=not train, **options)


class Dropout(nn.Module):
    """Dropout whose mask of an image does not depend on the batch it is in.

    So any number of devices gives the same training; with `nn.Dropout` all devices
    would have the same masks. While training, `apply` takes `rngs={"dropout": key}`
    and, among the variables, `{"batch": {"numbers": (B,) integers}}`: the indices of
    the images in their dataset, by default in the batch.

    Attributes:
      rate: Probability of zero; values that are kept are divided by 1 - rate.
      train: Whether anything is dropped.
      whole: Drop all features of an image, or none (stochastic depth).
    """

    rate: float
    train: bool
    whole: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, ...) floats after dropout."""
        if not (self.train and self.rate):
            return x
        key = self.make_rng("dropout")
        assert self.scope is not None
        numbers = self.scope.root.get_variable("batch", "numbers")
        numbers = jnp.arange(len(x)) if numbers is None else numbers
        shape = (1,) * (x.ndim - 1) if self.whole else x.shape[1:]

        def draw(number: jax.Array) -> jax.Array:
            image_key = jax.random.fold_in(key, number)
            return jax.random.bernoulli(image_key, 1 - self.rate, shape)

        return jnp.where(jax.vmap(draw)(numbers), x / (1 - self.rate), 0)


@jax.custom_vjp
def relu_pool_2x2(x: jax.Array, affine: norms.Affine) -> jax.Array:
    """Average of 2x2 windows of relu(affine(x)).

    This follows a convolution in a ConvNet. It is equal to one operation after the
    other, but its gradient goes over x twice and not six times: on CPUs these
    operations are bound by memory.

    Args:
      x: (B, H, W, C) float; an odd last row or column is left out.
      affine: Affine of (B, 1, 1, C) or (1, 1, 1, C) arrays.

    Returns:
      (B, H // 2, W // 2, C), the dtype of `x`.
    """
    a, b, c, d = (jnp.maximum(affine(corner), 0) for corner in _corners(x))
    return ((a + b + c + d) / 4).astype(x.dtype)


def _relu_pool_forward(
    x: jax.Array, affine: norms.Affine
) -> tuple[jax.Array, tuple[jax.Array, norms.Affine]]:
    return relu_pool_2x2(x, affine), (x, affine)


def _relu_pool_backward(
    saved: tuple[jax.Array, norms.Affine], cotangent: jax.Array
) -> tuple[jax.Array, norms.Affine]:
    x, affine = saved
    batch, height, width, channels = x.shape
    rows, columns = height // 2, width // 2
    gradient = cotangent.astype(jnp.float32) / 4

    of_pixels = jnp.broadcast_to(
        gradient[:, :, None, :, None], (batch, rows, 2, columns, 2, channels)
    ).reshape(batch, 2 * rows, 2 * columns, channels)
    left_out = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
    of_pixels = jnp.pad(of_pixels, left_out) * affine.factor
    of_x = jnp.where(affine(x) > 0, of_pixels, 0).astype(x.dtype)

    # Both sums in one array, over windows first: one pass over x, and little after it.
    of_factor, of_shift = jnp.zeros_like(gradient), jnp.zeros_like(gradient)
    for corner in _corners(x):
        active = affine(corner) > 0
        of_factor += jnp.where(active, corner - affine.center, 0)
        of_shift += active
    of_images = jnp.stack([of_factor * gradient, of_shift * gradient]).sum((2, 3))
    axes = (1,) if affine.factor.shape[0] == 1 else ()
    of_factor, of_shift = of_images.sum(axes).reshape(2, *affine.factor.shape)
    return of_x, norms.Affine(-affine.factor * of_shift, of_factor, of_shift)


relu_pool_2x2.defvjp(_relu_pool_forward, _relu_pool_backward)


def _corners(x: jax.Array) -> list[jax.Array]:
    """The four pixels of every 2x2 window, (B, H // 2, W // 2, C) each."""
    batch, height, width, channels = x.shape
    rows, columns = height // 2, width // 2
    windows = x[:, : 2 * rows, : 2 * columns].reshape(
        batch, rows, 2, columns, 2, channels
    )
    return [windows[:, :, i, :, j] for i in range(2) for j in range(2)]


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
