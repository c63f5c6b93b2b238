"""The ResNets of section 4.2 of He et al. (arXiv 1512.03385), made for CIFAR-10."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gift_jax import registry
from gift_jax.models import initializers, layers

# Section 4.2 of the paper: options A and B.
SHORTCUTS = ("pad", "projection")


class CifarBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut.

    Where the block changes its input's shape, the shortcut has no parameters and pads
    the channels with zeros (option A), or is a projection (option B).
    """

    features: int
    stride: int
    shortcut: str
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, H / stride, W / stride, features)."""
        y = self.conv(self.features, 3, self.stride, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = self.conv(self.features, 3, name="conv2")(y)
        y = self.norm(name="bn2")(y)
        if y.shape != x.shape and self.shortcut == "projection":
            x = self.conv(self.features, 1, self.stride, name="downsample_conv")(x)
            x = self.norm(name="downsample_bn")(x)
        elif y.shape != x.shape:
            x = x[:, :: self.stride, :: self.stride]
            missing = (self.features - x.shape[-1]) // 2
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (missing, missing)))
        return nn.relu(y + x)


class CifarResNet(nn.Module):
    """ResNet-20 to 110 of akamaster/pytorch_resnet_cifar10 (resnet.py).

    Three stages of 16, 32 and 64 channels. With projections it is that of
    chenyaofo/pytorch-cifar-models (resnet.py), including its initial weights.

    Attributes:
      blocks: Blocks of each stage: (layers - 2) / 6.
      num_classes: Length of the logits.
      shortcut: "pad" or "projection", see `CifarBlock`.
      dtype: Dtype of the computation; parameters and logits are float32.
      axis_name: Mapped axis over which batch norm averages while training.
    """

    blocks: int
    num_classes: int
    shortcut: str = "pad"
    dtype: Any = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        """Raises UnknownNameError for an unknown shortcut."""
        super().__post_init__()
        if self.shortcut not in SHORTCUTS:
            raise registry.unknown_name("shortcut", self.shortcut, SHORTCUTS)

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits of a batch of images.

        Args:
          images: (B, H, W, channels) float, normalised.
          train: Normalise by the batch's statistics and update the running ones.

        Returns:
          (B, num_classes) float32.
        """
        conv_init = head_init = initializers.kaiming_normal_fan_in
        if self.shortcut == "projection":
            conv_init = initializers.kaiming_normal_fan_out
            head_init = initializers.torch_default_kernel
        conv = functools.partial(layers.conv, kernel_init=conv_init, dtype=self.dtype)
        norm = functools.partial(
            layers.batch_norm, train=train, axis_name=self.axis_name, dtype=self.dtype
        )
        x = nn.relu(norm(name="bn1")(conv(16, 3, name="conv1")(images)))
        for stage, features in enumerate((16, 32, 64)):
            for i in range(self.blocks):
                x = CifarBlock(
                    features=features,
                    stride=2 if stage > 0 and i == 0 else 1,
                    shortcut=self.shortcut,
                    conv=conv,
                    norm=norm,
                    name=f"layer{stage + 1}_{i}",
                )(x)
        x = x.mean((1, 2))
        return nn.Dense(
            self.num_classes,
            kernel_init=head_init,
            bias_init=initializers.torch_default_bias(x.shape[-1]),
            dtype=jnp.float32,
            name="linear",
        )(x)
