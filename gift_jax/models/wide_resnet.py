"""Wide ResNets for CIFAR (Zagoruyko and Komodakis, arXiv 1605.07146)."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gift_jax.models import initializers, layers
from gift_jax.runtime.errors import InputError


class WideBlock(nn.Module):
    """Batch norm, ReLU and 3x3 convolution, two times, around a shortcut.

    Where the block changes the channels, the shortcut is a convolution of the first
    activations; else it is the block's input.
    """

    features: int
    stride: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, H / stride, W / stride, features)."""
        y = nn.relu(self.norm(name="bn1")(x))
        if x.shape[-1] != self.features:
            x = self.conv(self.features, 1, self.stride, name="shortcut")(y)
        y = self.conv(self.features, 3, self.stride, name="conv1")(y)
        y = nn.relu(self.norm(name="bn2")(y))
        return x + self.conv(self.features, 3, name="conv2")(y)


class WideResNet(nn.Module):
    """WRN-depth-widen of xternalz/WideResNet-pytorch (wideresnet.py), no dropout.

    Three stages of 16, 32 and 64 channels times `widen`. Also the teachers of
    HobbitLong/RepDistiller (models/wrn.py).

    Attributes:
      num_classes: Length of the logits.
      depth: Layers: 6 n + 4 for n blocks per stage.
      widen: The width factor.
      dtype: Dtype of the computation; parameters and logits are float32.
      axis_name: Mapped axis over which batch norm averages while training.
    """

    num_classes: int
    depth: int = 28
    widen: int = 10
    dtype: Any = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        """Refuses depths that are not 6 n + 4, and widths below 1."""
        super().__post_init__()
        if self.depth < 10 or self.depth % 6 != 4 or self.widen < 1:
            raise InputError(
                f"wrn: depth is {self.depth} and widen {self.widen}, but depth must "
                "be 10, 16, 22, 28, ... (6 n + 4) and widen at least 1."
            )

    @property
    def blocks(self) -> int:
        """Blocks of each stage."""
        return (self.depth - 4) // 6

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits of a batch of images.

        Args:
          images: (B, H, W, channels) float, normalised.
          train: Normalise by the batch's statistics and update the running ones.

        Returns:
          (B, num_classes) float32.
        """
        conv = functools.partial(
            layers.conv,
            kernel_init=initializers.kaiming_normal_fan_out,
            dtype=self.dtype,
        )
        norm = functools.partial(
            layers.batch_norm, train=train, axis_name=self.axis_name, dtype=self.dtype
        )
        x = conv(16, 3, name="conv1")(images)
        for stage, features in enumerate((16, 32, 64)):
            for i in range(self.blocks):
                x = WideBlock(
                    features=features * self.widen,
                    stride=2 if stage > 0 and i == 0 else 1,
                    conv=conv,
                    norm=norm,
                    name=f"block{stage + 1}_{i}",
                )(x)
        x = nn.relu(norm(name="bn1")(x)).mean((1, 2))
        return nn.Dense(
            self.num_classes,
            kernel_init=initializers.torch_default_kernel,
            dtype=jnp.float32,
            name="fc",
        )(x)
