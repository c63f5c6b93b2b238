"""ResNets as in torchvision, and their variant for small images."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gift_jax import registry
from gift_jax.models import initializers, layers, norms

_NORMS = ("batch", "instance")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (torchvision BasicBlock)."""

    features: int
    stride: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, H / stride, W / stride, features)."""
        y = self.conv(self.features, 3, self.stride, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = self.conv(self.features, 3, name="conv2")(y)
        y = self.norm(name="bn2")(y)
        return nn.relu(y + _shortcut(self, x, y.shape[-1]))


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, the stride on the 3x3 (torchvision Bottleneck)."""

    features: int
    stride: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, H / stride, W / stride, 4 * features)."""
        y = self.conv(self.features, 1, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = self.conv(self.features, 3, self.stride, name="conv2")(y)
        y = nn.relu(self.norm(name="bn2")(y))
        y = self.conv(4 * self.features, 1, name="conv3")(y)
        y = self.norm(name="bn3")(y)
        return nn.relu(y + _shortcut(self, x, y.shape[-1]))


def _shortcut(
    block: BasicBlock | BottleneckBlock, x: jax.Array, features: int
) -> jax.Array:
    """The block's input, projected where the block changes its shape."""
    if block.stride == 1 and x.shape[-1] == features:
        return x
    x = block.conv(features, 1, block.stride, name="downsample_conv")(x)
    return block.norm(name="downsample_bn")(x)


class ResNet(nn.Module):
    """ResNet of torchvision/models/resnet.py, v1.5 (arXiv 1512.03385).

    The modified form, which GIFT and RDED use on CIFAR and Tiny-ImageNet, has a 3x3
    stem of stride 1 and no max-pool (CIM data/utils/load_model.py). It is also that of
    kuangliu/pytorch-cifar, and with instance norm that of DC (networks.py).

    Attributes:
      stage_sizes: Blocks of each stage; every stage after the first halves the
          image and doubles the channels.
      bottleneck: Bottleneck blocks instead of basic ones.
      modified: The variant for small images.
      num_classes: Length of the logits.
      norm: "batch" or "instance".
      dtype: Dtype of the computation; parameters and logits are float32.
      axis_name: Mapped axis over which batch norm averages while training.
    """

    stage_sizes: tuple[int, ...]
    bottleneck: bool
    modified: bool
    num_classes: int
    norm: str = "batch"
    dtype: Any = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        """Raises UnknownNameError for an unknown norm."""
        super().__post_init__()
        if self.norm not in _NORMS:
            raise registry.unknown_name("norm of a ResNet", self.norm, _NORMS)

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits of a batch of images.

        Args:
          images: (B, H, W, channels) float, normalised.
          train: Normalise by the batch's statistics and update the running ones.

        Returns:
          (B, num_classes) float32.
        """
        # DC's definition keeps PyTorch's default.
        kernel_init = (
            initializers.torch_default_kernel
            if self.norm == "instance"
            else initializers.kaiming_normal_fan_out
        )
        conv = functools.partial(layers.conv, kernel_init=kernel_init, dtype=self.dtype)
        norm: Any = functools.partial(
            layers.batch_norm, train=train, axis_name=self.axis_name, dtype=self.dtype
        )
        if self.norm == "instance":
            norm = functools.partial(norms.InstanceNorm, dtype=self.dtype)
        if self.modified:
            # The stem is replaced after torchvision has drawn its weights, so it keeps
            # the default of torch.nn.Conv2d.
            stem = conv(
                64, 3, kernel_init=initializers.torch_default_kernel, name="conv1"
            )
        else:
            stem = conv(64, 7, 2, name="conv1")
        x = nn.relu(norm(name="bn1")(stem(images)))
        if not self.modified:
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))

        block = BottleneckBlock if self.bottleneck else BasicBlock
        for stage, size in enumerate(self.stage_sizes):
            for i in range(size):
                x = block(
                    features=64 * 2**stage,
                    stride=2 if stage > 0 and i == 0 else 1,
                    conv=conv,
                    norm=norm,
                    name=f"layer{stage + 1}_{i}",
                )(x)

        x = x.mean((1, 2))
        return nn.Dense(
            self.num_classes,
            **initializers.torch_defaults(x.shape[-1]),
            dtype=jnp.float32,
            name="fc",
        )(x)
