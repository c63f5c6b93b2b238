"""Initial weights as the PyTorch definitions of the networks draw them.

Flax's own default (LeCun normal, zero bias) is a different recipe: students start
from weights of another size and spread than in the published experiments.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.nn.initializers import Initializer, normal, variance_scaling

# torch.nn.Conv2d and torch.nn.Linear (reset_parameters): Kaiming uniform with
# a = sqrt(5), which is U(-b, b) with b = 1 / sqrt(fan_in).
torch_default_kernel: Initializer = variance_scaling(1 / 3, "fan_in", "uniform")

# torchvision's ResNet, VGG, MobileNetV2 and EfficientNet, and chenyaofo's ResNets for
# CIFAR: convolutions by kaiming_normal_(mode="fan_out").
kaiming_normal_fan_out: Initializer = variance_scaling(2.0, "fan_out", "normal")

# akamaster/pytorch_resnet_cifar10 (resnet.py, _weights_init): kaiming_normal_ for
# convolutions and the linear layer.
kaiming_normal_fan_in: Initializer = variance_scaling(2.0, "fan_in", "normal")

# torchvision's VGG and MobileNetV2: linear layers by normal_(0, 0.01).
normal_001: Initializer = normal(0.01)


def symmetric_uniform(bound: float) -> Initializer:
    """Initializer that draws from U(-bound, bound)."""

    def init(
        key: jax.Array,
        shape: Sequence[int],
        dtype: Any = float,
        out_sharding: Any = None,
    ) -> jax.Array:
        del out_sharding  # part of the Initializer protocol
        return jax.random.uniform(key, shape, dtype, minval=-bound, maxval=bound)

    return init


def torch_default_bias(fan_in: int) -> Initializer:
    """Bias of torch.nn.Conv2d and torch.nn.Linear: U(-b, b), b = 1 / sqrt(fan_in).

    Args:
      fan_in: Inputs of one output unit: input channels times the kernel's area.
    """
    return symmetric_uniform(1 / math.sqrt(fan_in))


def torch_defaults(fan_in: int) -> dict[str, Any]:
    """Both initializers of a layer with a bias; `fan_in`: see `torch_default_bias`."""
    bias = torch_default_bias(fan_in)
    return {"kernel_init": torch_default_kernel, "bias_init": bias}
