"""VGG-11 as in torchvision."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gift_jax.models import initializers, layers
from gift_jax.runtime.errors import InputError

# Channels of the convolutions between max-pools: configuration A of Simonyan and
# Zisserman (arXiv 1409.1556), torchvision/models/vgg.py.
STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))
POOLED_SIZE = 7
MINIMUM_IMAGE_SIZE = 2 ** len(STAGES)


class VGG11(nn.Module):
    """VGG-11 without batch norm (torchvision/models/vgg.py, vgg11).

    Training draws dropout masks: `apply` needs `rngs={"dropout": key}`.

    Attributes:
        num_classes: Length of the logits.
        image_size: Height and width of the images, at least 32.
        dtype: Dtype of the computation; parameters and logits are float32.
        axis_name: Without effect, since there are no batch statistics; taken so that
            every model is built by the same call.
    """

    num_classes: int
    image_size: int
    dtype: Any = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        """Refuses images that the max-pools would shrink to nothing."""
        super().__post_init__()
        if self.image_size < MINIMUM_IMAGE_SIZE:
            raise InputError(
                f"vgg11 halves the image {len(STAGES)} times and needs image_size >= "
                f"{MINIMUM_IMAGE_SIZE}, got {self.image_size}."
            )

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits of a batch of images.

        Args:
            images: (B, image_size, image_size, channels) float, normalised.
            train: Drop units of the two hidden linear layers.

        Returns:
            (B, num_classes) float32.
        """
        conv = functools.partial(
            layers.conv,
            use_bias=True,
            kernel_init=initializers.kaiming_normal_fan_out,
            dtype=self.dtype,
        )
        dense = functools.partial(nn.Dense, kernel_init=initializers.normal_001)
        x = images
        index = 0
        for stage in STAGES:
            for features in stage:
                x = nn.relu(conv(features, 3, name=f"conv{index}")(x))
                index += 1
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = layers.adaptive_average_pool(x, POOLED_SIZE)
        x = x.reshape(x.shape[0], -1)
        for name in ("fc0", "fc1"):
            x = nn.relu(dense(4096, dtype=self.dtype, name=name)(x))
            x = layers.Dropout(0.5, train)(x)
        return dense(self.num_classes, dtype=jnp.float32, name="fc2")(x)
