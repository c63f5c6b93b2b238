"""MobileNetV2 as in torchvision, and the block that EfficientNet shares with it."""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gift_jax.models import initializers, layers
from gift_jax.runtime.errors import InputError

# (expansion, channels, blocks, stride of the first block): table 2 of Sandler et al.
# (arXiv 1801.04381), torchvision/models/mobilenetv2.py.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def scaled(channels: int, width_mult: float) -> int:
    """Channels of a wider or narrower network, a multiple of 8 (torchvision).

    >>> scaled(32, 0.5), scaled(24, 0.35), scaled(16, 1.4)
    (16, 8, 24)
    """
    exact = channels * width_mult
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * exact else rounded + 8


class InvertedResidual(nn.Module):
    """Widening 1x1, depthwise and narrowing 1x1 convolution around a shortcut.

    Attributes:
      features: Channels of the result.
      expansion: Channels inside the block over channels of its input; 1 leaves the
          widening convolution out.
      kernel_size: Kernel of the depthwise convolution.
      stride: Stride of the depthwise convolution.
      activation: Nonlinearity after the first two convolutions.
      squeeze: Squeeze-and-excitation (arXiv 1709.01507) before the narrowing.
      drop_rate: Probability that training drops the residual branch of an example
          (stochastic depth, arXiv 1603.09382).
      train: Whether batch norm and stochastic depth are in their training mode.
      conv: Builds a convolution.
      norm: Builds a batch norm.
    """

    features: int
    expansion: int
    kernel_size: int
    stride: int
    activation: Callable[[jax.Array], jax.Array]
    squeeze: bool
    drop_rate: float
    train: bool
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, H / stride, W / stride, features)."""
        hidden = self.expansion * x.shape[-1]
        y = x
        if self.expansion != 1:
            y = self.conv(hidden, 1, name="expand_conv")(y)
            y = self.activation(self.norm(name="expand_bn")(y))
        y = self.conv(
            hidden,
            self.kernel_size,
            self.stride,
            feature_group_count=hidden,
            name="depthwise_conv",
        )(y)
        y = self.activation(self.norm(name="depthwise_bn")(y))
        if self.squeeze:
            # torchvision: a quarter of the channels of the block's input.
            squeezed = max(1, x.shape[-1] // 4)
            scale = y.mean((1, 2), keepdims=True)
            scale = self.conv(squeezed, 1, use_bias=True, name="squeeze")(scale)
            scale = self.activation(scale)
            scale = self.conv(hidden, 1, use_bias=True, name="excite")(scale)
            y = y * nn.sigmoid(scale)
        y = self.conv(self.features, 1, name="project_conv")(y)
        y = self.norm(name="project_bn")(y)
        if y.shape != x.shape:
            return y
        return x + layers.Dropout(self.drop_rate, self.train, whole=True)(y)


class MobileNetV2(nn.Module):
    """MobileNetV2 (torchvision/models/mobilenetv2.py, mobilenet_v2).

    Training draws a dropout mask: `apply` needs `rngs={"dropout": key}`. The modified
    form, for small images, does not reduce them in the stem and the second stage
    (chenyaofo/pytorch-cifar-models, mobilenetv2.py).

    Attributes:
      modified: The variant for small images.
      num_classes: Length of the logits.
      width_mult: Factor of the channels.
      dtype: Dtype of the computation; parameters and logits are float32.
      axis_name: Mapped axis over which batch norm averages while training.
    """

    modified: bool
    num_classes: int
    width_mult: float = 1.0
    dtype: Any = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        """Raises InputError for an impossible width."""
        super().__post_init__()
        if not 0 < self.width_mult < math.inf:
            raise InputError(f"width_mult is {self.width_mult}, but must be positive.")

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits of a batch of images.

        Args:
          images: (B, H, W, channels) float, normalised.
          train: Use and update batch statistics; drop features.

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
        stem = conv(
            scaled(32, self.width_mult), 3, 1 if self.modified else 2, name="stem_conv"
        )
        x = nn.relu6(norm(name="stem_bn")(stem(images)))
        index = 0
        for stage, (expansion, features, blocks, stride) in enumerate(STAGES):
            if self.modified and stage == 1:
                stride = 1
            for i in range(blocks):
                x = InvertedResidual(
                    features=scaled(features, self.width_mult),
                    expansion=expansion,
                    kernel_size=3,
                    stride=stride if i == 0 else 1,
                    activation=nn.relu6,
                    squeeze=False,
                    drop_rate=0.0,
                    train=train,
                    conv=conv,
                    norm=norm,
                    name=f"block{index}",
                )(x)
                index += 1
        last = scaled(1280, max(1.0, self.width_mult))
        x = nn.relu6(norm(name="head_bn")(conv(last, 1, name="head_conv")(x)))
        x = layers.Dropout(0.2, train)(x.mean((1, 2)))
        return nn.Dense(
            self.num_classes,
            kernel_init=initializers.normal_001,
            dtype=jnp.float32,
            name="classifier",
        )(x)
