"""Batch and instance norm as one multiplication and addition per value.

As PyTorch's CPU kernels do, and unlike Flax, whose difference, product and sum are as
many passes over the features and, in the gradient, as many sums.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

EPSILON = 1e-5  # torch.nn.BatchNorm2d and torch.nn.GroupNorm
_MOMENTUM = 0.9  # PyTorch's 0.1, which weighs the new value


class BatchNorm(nn.Module):
    """Batch norm over all axes but the last (torch.nn.BatchNorm2d).

    Parameters and statistics have the names of `flax.linen.BatchNorm`. As in Flax, the
    running variance is the biased one; PyTorch's is larger by n / (n - 1), for n values
    of a batch. Both normalise by the biased variance.

    Attributes:
        use_running_average: Normalise by the running statistics and keep them.
        axis_name: Mapped axis over which statistics are averaged.
        dtype: Dtype of the result; statistics and parameters are float32.
    """

    use_running_average: bool
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def affine(
        self, x: jax.Array, offset: jax.Array | float = 0.0
    ) -> tuple[jax.Array, jax.Array]:
        """The factor and shift with which factor * x + shift = norm(x + offset).

        Args:
            x: (..., C) float.
            offset: (C,) float32. A bias that the norm undoes anyway, and that need not
                be added to all of x; only the running mean knows of it.

        Returns:
            (1, ..., 1, C) float32 each.
        """
        channels, batch_axes = x.shape[-1:], tuple(range(x.ndim - 1))
        parameters = _parameters(self, channels)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_variance = self.variable("batch_stats", "var", jnp.ones, channels)
        if self.use_running_average:
            mean, variance = running_mean.value - offset, running_variance.value
        elif self.is_initializing():
            mean, variance = _moments(x, batch_axes)
        else:
            mean, variance = _moments(x, batch_axes, self.axis_name)
            _update(running_mean, mean + offset)
            _update(running_variance, variance)
        affine = _affine(mean, variance, *parameters)
        return jax.tree.map(lambda a: jnp.expand_dims(a, batch_axes), affine)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (..., C) to the same shape."""
        factor, shift = self.affine(x)
        return (factor * x + shift).astype(self.dtype)


class InstanceNorm(nn.Module):
    """Instance norm (torch.nn.GroupNorm with one channel per group)."""

    @nn.compact
    def affine(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The factor and shift with which factor * x + shift = norm(x).

        Args:
            x: (B, H, W, C) float. A bias added to it would change nothing.

        Returns:
            (B, 1, 1, C) float32 each.
        """
        scale, bias = _parameters(self, x.shape[-1:])
        moments = _moments(x, (1, 2))
        affine = jax.vmap(_affine, (0, 0, None, None))(*moments, scale, bias)
        return jax.tree.map(lambda a: jnp.expand_dims(a, (1, 2)), affine)


def _parameters(
    module: nn.Module, channels: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    scale = module.param("scale", nn.initializers.ones, channels)
    return scale, module.param("bias", nn.initializers.zeros, channels)


def _moments(
    x: jax.Array, axes: tuple[int, ...], axis_name: str | None = None
) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance over the axes, float32."""
    values = x.astype(jnp.float32)
    mean, mean_square = values.mean(axes), jnp.square(values).mean(axes)
    if axis_name is not None:
        mean, mean_square = jax.lax.pmean((mean, mean_square), axis_name)
    # Rounding may leave a difference below zero.
    return mean, jnp.maximum(mean_square - jnp.square(mean), 0)


def _affine(
    mean: jax.Array, variance: jax.Array, scale: jax.Array, bias: jax.Array
) -> tuple[jax.Array, jax.Array]:
    factor = scale * jax.lax.rsqrt(variance + EPSILON)
    return factor, bias - mean * factor


def _update(running: nn.Variable, value: jax.Array) -> None:
    running.value = _MOMENTUM * running.value + (1 - _MOMENTUM) * value
