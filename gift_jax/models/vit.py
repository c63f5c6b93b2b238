"""Vision transformers (Dosovitskiy et al., arXiv 2010.11929) as in timm."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gift_jax.models import initializers
from gift_jax.runtime.errors import InputError

# timm/models/vision_transformer.py: weights by trunc_normal_(std=0.02), which cuts at
# -2 and 2, a hundred deviations, and LayerNorm with this epsilon.
_WEIGHTS = nn.initializers.normal(0.02)
_EPSILON = 1e-6
_LEAST_NORMAL = nn.initializers.normal(1e-6)  # of the class token


class TransformerBlock(nn.Module):
    """Attention, then two linear layers, each on normed inputs and with a shortcut."""

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, tokens, width) to the same shape."""
        batch, tokens, width = x.shape
        dense = functools.partial(nn.Dense, kernel_init=_WEIGHTS, dtype=self.dtype)
        norm = functools.partial(nn.LayerNorm, epsilon=_EPSILON, dtype=self.dtype)
        y = dense(3 * width, name="qkv")(norm(name="norm1")(x))
        y = y.reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = y[:, :, 0], y[:, :, 1], y[:, :, 2]
        y = nn.dot_product_attention(query, key, value, dtype=self.dtype)
        x = x + dense(width, name="proj")(y.reshape(x.shape))
        y = dense(4 * width, name="fc1")(norm(name="norm2")(x))
        return x + dense(width, name="fc2")(nn.gelu(y, approximate=False))


class VisionTransformer(nn.Module):
    """ViT with a class token (timm: vit_small_patch16_224 and DeiT are such).

    Attributes:
      width: Length of the tokens.
      depth: Number of blocks.
      heads: Number of attention heads.
      patch_size: Side of a patch in pixels.
      num_classes: Length of the logits.
      image_size: Height and width of the images, a multiple of `patch_size`.
      dtype: Dtype of the computation; parameters and logits are float32.
      axis_name: Without effect, since there are no batch statistics; taken so that
          every model is built by the same call.
    """

    width: int
    depth: int
    heads: int
    patch_size: int
    num_classes: int
    image_size: int
    dtype: Any = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        """Refuses images that are not made of whole patches."""
        super().__post_init__()
        if self.image_size % self.patch_size:
            raise InputError(
                f"a transformer of {self.patch_size}x{self.patch_size} patches needs "
                f"an image_size that is a multiple of it, got {self.image_size}."
            )

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits of a batch of images.

        Args:
          images: (B, image_size, image_size, channels) float, normalised.
          train: Without effect: timm's defaults drop nothing.

        Returns:
          (B, num_classes) float32.
        """
        del train
        patches = (self.patch_size, self.patch_size)
        x = nn.Conv(
            self.width,
            patches,
            strides=patches,
            padding="VALID",
            **initializers.torch_defaults(images.shape[-1] * self.patch_size**2),
            dtype=self.dtype,
            name="patch_embed",
        )(images)
        x = x.reshape(len(x), -1, self.width)
        token = self.param("cls_token", _LEAST_NORMAL, (1, 1, self.width))
        token = jnp.broadcast_to(token, (len(x), 1, self.width)).astype(x.dtype)
        x = jnp.concatenate([token, x], 1)
        places = self.param("pos_embed", _WEIGHTS, (1, *x.shape[1:]))
        x = x + places.astype(x.dtype)
        for i in range(self.depth):
            x = TransformerBlock(self.heads, self.dtype, name=f"block{i}")(x)
        x = nn.LayerNorm(epsilon=_EPSILON, dtype=self.dtype, name="norm")(x[:, 0])
        head = nn.Dense(
            self.num_classes, kernel_init=_WEIGHTS, dtype=jnp.float32, name="head"
        )
        return head(x)
