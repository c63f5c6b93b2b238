"""VGG as in torchvision, with or without batch norm, and its forms for small images."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gift_jax import registry
from gift_jax.models import initializers, layers
from gift_jax.runtime.errors import InputError

# Channels of the stages between max-pools, and how many convolutions each stage has:
# configurations A, B, D and E of Simonyan and Zisserman (arXiv 1409.1556),
# torchvision/models/vgg.py.
CHANNELS = (64, 128, 256, 512, 512)
CONVOLUTIONS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
# (units of both hidden linear layers, side of the map that they read): of torchvision,
# of chenyaofo/pytorch-cifar-models (vgg.py), and the one linear layer of
# kuangliu/pytorch-cifar (vgg.py) and DC (networks.py, VGG).
HEADS = {"imagenet": (4096, 7), "cifar": (512, 1), "linear": (0, 1)}
MINIMUM_IMAGE_SIZE = 2 ** len(CHANNELS)


class VGG(nn.Module):
    """VGG-11, 13, 16 or 19 (torchvision/models/vgg.py).

    Training draws dropout masks: `apply` needs `rngs={"dropout": key}`.

    Attributes:
      depth: Layers with weights.
      batch_norm: Whether a batch norm follows every convolution.
      num_classes: Length of the logits.
      image_size: Height and width of the images, at least 32.
      head: A key of `HEADS`.
      dtype: Dtype of the computation; parameters and logits are float32.
      axis_name: Mapped axis over which batch norm averages while training.
    """

    depth: int
    batch_norm: bool
    num_classes: int
    image_size: int
    head: str = "imagenet"
    dtype: Any = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        """Refuses unknown heads and images that the max-pools shrink to nothing."""
        super().__post_init__()
        if self.head not in HEADS:
            raise registry.unknown_name(f"head of vgg{self.depth}", self.head, HEADS)
        if self.image_size < MINIMUM_IMAGE_SIZE:
            raise InputError(
                f"vgg{self.depth} halves the image {len(CHANNELS)} times and needs "
                f"image_size >= {MINIMUM_IMAGE_SIZE}, got {self.image_size}."
            )

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits of a batch of images.

        Args:
          images: (B, image_size, image_size, channels) float, normalised.
          train: Drop units of the hidden linear layers; use batch statistics.

        Returns:
          (B, num_classes) float32.
        """
        # Kuangliu's and DC's definitions keep PyTorch's defaults.
        has_defaults = self.head == "linear"

        def conv(features: int, name: str) -> nn.Conv:
            drawn: dict[str, Any] = {"kernel_init": initializers.kaiming_normal_fan_out}
            if has_defaults:
                drawn = initializers.torch_defaults(9 * x.shape[-1])
            return layers.conv(
                features, 3, use_bias=True, dtype=self.dtype, name=name, **drawn
            )

        norm = functools.partial(
            layers.batch_norm, train=train, axis_name=self.axis_name, dtype=self.dtype
        )
        dense = functools.partial(nn.Dense, kernel_init=initializers.normal_001)
        x = images
        index = 0
        for features, size in zip(CHANNELS, CONVOLUTIONS[self.depth], strict=True):
            for _ in range(size):
                x = conv(features, f"conv{index}")(x)
                x = nn.relu(norm(name=f"bn{index}")(x) if self.batch_norm else x)
                index += 1
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        hidden, pooled = HEADS[self.head]
        x = layers.adaptive_average_pool(x, pooled)
        x = x.reshape(x.shape[0], -1)
        for name in ("fc0", "fc1") if hidden else ():
            x = nn.relu(dense(hidden, dtype=self.dtype, name=name)(x))
            x = layers.Dropout(0.5, train)(x)
        last = initializers.torch_defaults(x.shape[-1]) if has_defaults else {}
        return dense(self.num_classes, dtype=jnp.float32, name="fc2", **last)(x)
