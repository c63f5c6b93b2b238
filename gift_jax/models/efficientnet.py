"""EfficientNet-B0 as in torchvision."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gift_jax.models import initializers, layers
from gift_jax.models.mobilenet import InvertedResidual

# (expansion, kernel, stride of the first block, channels, blocks): table 1 of Tan and
# Le (arXiv 1905.11946), torchvision/models/efficientnet.py.
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
# Block i of n drops its residual branch with probability 0.2 * i / n (torchvision).
STOCHASTIC_DEPTH = 0.2

# torchvision draws the classifier from U(-b, b), b = 1 / sqrt(outputs). GIFT and RDED
# build it with ImageNet's 1000 outputs and keep the rows of their classes (CIM
# data/utils/load_model.py, pruning_classifier), so b does not depend on num_classes.
CLASSIFIER_BOUND = 1 / math.sqrt(1000)


class EfficientNetB0(nn.Module):
    """EfficientNet-B0 (torchvision/models/efficientnet.py, efficientnet_b0).

    Training draws dropout and stochastic depth masks: `apply` needs
    `rngs={"dropout": key}`.

    Attributes:
      num_classes: Length of the logits.
      dtype: Dtype of the computation; parameters and logits are float32.
      axis_name: Mapped axis over which batch norm averages while training.
    """

    num_classes: int
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits of a batch of images.

        Args:
          images: (B, H, W, channels) float, normalised.
          train: Use and update batch statistics; drop branches and features.

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
        x = nn.silu(norm(name="stem_bn")(conv(32, 3, 2, name="stem_conv")(images)))
        total = sum(blocks for *_, blocks in STAGES)
        index = 0
        for stage, (expansion, kernel, stride, features, blocks) in enumerate(STAGES):
            for i in range(blocks):
                x = InvertedResidual(
                    features=features,
                    expansion=expansion,
                    kernel_size=kernel,
                    stride=stride if i == 0 else 1,
                    activation=nn.silu,
                    squeeze=True,
                    drop_rate=STOCHASTIC_DEPTH * index / total,
                    train=train,
                    conv=conv,
                    norm=norm,
                    name=f"stage{stage}_{i}",
                )(x)
                index += 1
        x = nn.silu(norm(name="head_bn")(conv(1280, 1, name="head_conv")(x)))
        x = layers.Dropout(0.2, train)(x.mean((1, 2)))
        return nn.Dense(
            self.num_classes,
            kernel_init=initializers.symmetric_uniform(CLASSIFIER_BOUND),
            dtype=jnp.float32,
            name="classifier",
        )(x)
