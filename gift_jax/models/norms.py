"""Batch and instance norm, and the affine map that they apply to every value."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

EPSILON = 1e-5  # torch.nn.BatchNorm2d and torch.nn.GroupNorm
_MOMENTUM = 0.9  # PyTorch's 0.1, which weighs the new value


class Affine(NamedTuple):
    """The normalisation of features x, factor * (x - center) + shift.

    The center is not folded into the shift: where it is large, that would leave the
    difference of two large numbers.

    Attributes:
      center: Float32, broadcastable to the features.
      factor: Like `center`.
      shift: Like `center`.
    """

    center: jax.Array
    factor: jax.Array
    shift: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        """The normalised features, float32."""
        return self.factor * (x - self.center) + self.shift


class BatchNorm(nn.Module):
    """Batch norm over all axes but the last (torch.nn.BatchNorm2d).

    Parameters and statistics have the names of `flax.linen.BatchNorm`. As in Flax, the
    running variance is the biased one; PyTorch's is larger by n / (n - 1), for n values
    of a batch. Both normalise by the biased variance.

    Attributes:
      use_running_average: Normalise by the running statistics and leave them unchanged.
      axis_name: Mapped axis over which statistics are averaged.
      dtype: Dtype of the result; statistics and parameters are float32.
    """

    use_running_average: bool
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def affine(self, x: jax.Array, offset: jax.Array | float = 0.0) -> Affine:
        """The affine map from x to norm(x + offset).

        Args:
          x: (..., C) float.
          offset: (C,) float32. A bias that the norm cancels, so that it need not be
            added to all of x; only the running mean includes it.

        Returns:
          Affine of (1, ..., 1, C) arrays.
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
        return self.affine(x)(x).astype(self.dtype)


class InstanceNorm(nn.Module):
    """Instance norm (torch.nn.GroupNorm with one channel per group).

    Attributes:
      dtype: Dtype of the result; parameters are float32.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def affine(self, x: jax.Array) -> Affine:
        """The affine map from x to norm(x).

        Args:
          x: (B, H, W, C) float. A bias added to it would change nothing.

        Returns:
          Affine of (B, 1, 1, C) arrays.
        """
        scale, bias = _parameters(self, x.shape[-1:])
        moments = _moments(x, (1, 2))
        affine = jax.vmap(_affine, (0, 0, None, None))(*moments, scale, bias)
        return jax.tree.map(lambda a: jnp.expand_dims(a, (1, 2)), affine)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to the same shape."""
        return self.affine(x)(x).astype(self.dtype)


def _parameters(
    module: nn.Module, channels: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    scale = module.param("scale", nn.initializers.ones, channels)
    return scale, module.param("bias", nn.initializers.zeros, channels)


def _moments(
    x: jax.Array, axes: tuple[int, ...], axis_name: str | None = None
) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance over the axes, float32.

    In one pass over x, as E[d^2] - E[d]^2 of the differences d from one of its values:
    with x itself, a large mean would leave nothing but rounding.
    """
    values = x.astype(jnp.float32)
    one = tuple(slice(1 if axis in axes else None) for axis in range(x.ndim))
    origin = jax.lax.stop_gradient(values[one])
    values -= origin
    mean, mean_square = values.mean(axes), jnp.square(values).mean(axes)
    # Rounding may leave a difference below zero.
    variance = jnp.maximum(mean_square - jnp.square(mean), 0)
    mean += origin.squeeze(axes)
    if axis_name is not None:
        # Moments of all devices, each with an origin of its own.
        means, variances = jax.lax.all_gather((mean, variance), axis_name)
        mean = means.mean(0)
        variance = (variances + jnp.square(means - mean[None])).mean(0)
    return mean, variance


def _affine(
    mean: jax.Array, variance: jax.Array, scale: jax.Array, bias: jax.Array
) -> Affine:
    factor = scale * jax.lax.rsqrt(variance + EPSILON)
    return Affine(mean, factor, jnp.broadcast_to(bias, factor.shape))


def _update(running: nn.Variable, value: jax.Array) -> None:
    running.value = _MOMENTUM * running.value + (1 - _MOMENTUM) * value
