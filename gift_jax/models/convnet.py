"""ConvNet-D, the small network of the dataset distillation literature."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gift_jax import registry
from gift_jax.models import initializers, layers, norms
from gift_jax.models.cpu import convolution
from gift_jax.runtime.errors import InputError

NORMS = ("batch", "instance", "none")


class ConvNet(nn.Module):
    """`depth` blocks of 3x3 convolution, norm, ReLU and 2x2 average pool, then linear.

    The network of GIFT, RDED and the matching methods (CIM data/utils/models.py,
    DATM networks.py), which inherit it from Dataset Condensation (arXiv 2006.05929).
    GIFT uses batch norm, and instance norm for DATM's images. Instance norm is
    PyTorch's GroupNorm with one channel per group.

    Attributes:
      depth: Number of blocks; each halves the image.
      num_classes: Length of the logits.
      image_size: Height and width of the images. Images of 28 pixels are padded to
          32 by the first convolution, as in the official code.
      width: Channels of every convolution.
      norm: "batch", "instance" or "none".
      dtype: Dtype of the computation; parameters and logits are float32.
      axis_name: Mapped axis over which batch norm averages while training.
    """

    depth: int
    num_classes: int
    image_size: int
    width: int = 128
    norm: str = "batch"
    dtype: Any = jnp.float32
    axis_name: str | None = None

    def __post_init__(self) -> None:
        """Refuses an unknown norm and images too small for the depth."""
        super().__post_init__()
        if self.norm not in NORMS:
            raise registry.unknown_name(f"norm of conv{self.depth}", self.norm, NORMS)
        if self.width < 1:
            raise InputError(f"conv{self.depth}: width is {self.width}, must be >= 1.")
        if self.final_size < 1:
            raise InputError(
                f"conv{self.depth} halves the image {self.depth} times and needs "
                f"image_size >= {2**self.depth}, got {self.image_size}. Use larger "
                "images or a shallower network."
            )

    @property
    def final_size(self) -> int:
        """Height and width of the feature map that the classifier reads."""
        padded_size = 32 if self.image_size == 28 else self.image_size
        return padded_size // 2**self.depth

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits of a batch of images.

        Args:
          images: (B, image_size, image_size, channels) float, normalised.
          train: Normalise by the batch's statistics and update the running ones.

        Returns:
          (B, num_classes) float32.

        Raises:
          InputError: The images are not of the size that the model was built for.
        """
        if images.shape[1:3] != (self.image_size, self.image_size):
            raise InputError(
                f"conv{self.depth} was built for image_size={self.image_size}, but the "
                f"images have the shape {images.shape}."
            )
        x = images
        for i in range(self.depth):
            x, bias = Conv(
                self.width,
                padding=3 if i == 0 and self.image_size == 28 else 1,
                dtype=self.dtype,
                name=f"conv{i}",
            )(x)
            affine = self._affine(x, bias, train, name=f"norm{i}")
            x = layers.relu_pool_2x2(x, affine)
        x = x.reshape(x.shape[0], -1)
        return nn.Dense(
            self.num_classes,
            **initializers.torch_defaults(x.shape[-1]),
            dtype=jnp.float32,
            name="classifier",
        )(x)

    def _affine(
        self, x: jax.Array, bias: jax.Array, train: bool, name: str
    ) -> norms.Affine:
        """The map that adds the bias to x and normalises."""
        if self.norm == "batch":
            norm = layers.batch_norm(train=train, axis_name=self.axis_name, name=name)
            return norm.affine(x, bias)
        if self.norm == "instance":
            return norms.InstanceNorm(name=name).affine(x)
        shift = bias.reshape(1, 1, 1, -1)
        return norms.Affine(jnp.zeros_like(shift), jnp.ones_like(shift), shift)


class Conv(nn.Module):
    """3x3 convolution that returns its bias instead of adding it."""

    features: int
    padding: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps (B, H, W, C) to (B, H', W', features) and the (features,) bias."""
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", initializers.torch_default_kernel, shape)
        bias_init = initializers.torch_default_bias(9 * x.shape[-1])
        bias = self.param("bias", bias_init, (self.features,))
        padding = ((self.padding, self.padding),) * 2
        features = convolution.conv(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            window_strides=(1, 1),
            padding=padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return features, bias
