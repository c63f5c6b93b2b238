"""The models by name."""

import inspect
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gift_jax import registry
from gift_jax.models.cifar_resnet import CifarResNet
from gift_jax.models.convnet import ConvNet
from gift_jax.models.efficientnet import EfficientNetB0
from gift_jax.models.mobilenet import MobileNetV2
from gift_jax.models.resnet import ResNet
from gift_jax.models.vgg import VGG11

_RESNETS = {
    "resnet18": partial(ResNet, stage_sizes=(2, 2, 2, 2), bottleneck=False),
    "resnet34": partial(ResNet, stage_sizes=(3, 4, 6, 3), bottleneck=False),
    "resnet50": partial(ResNet, stage_sizes=(3, 4, 6, 3), bottleneck=True),
    "resnet101": partial(ResNet, stage_sizes=(3, 4, 23, 3), bottleneck=True),
}

#: Every model by name: its class with the arguments that the name stands for.
MODELS: Mapping[str, partial[Any]] = MappingProxyType(
    {
        **{f"conv{depth}": partial(ConvNet, depth=depth) for depth in range(1, 9)},
        **{name: partial(net, modified=False) for name, net in _RESNETS.items()},
        **{
            f"{name}_modified": partial(net, modified=True)
            for name, net in _RESNETS.items()
        },
        **{
            f"resnet{6 * blocks + 2}": partial(CifarResNet, blocks=blocks)
            for blocks in (3, 5, 7, 9)
        },
        "mobilenet_v2": partial(MobileNetV2),
        "efficientnet_b0": partial(EfficientNetB0),
        "vgg11": partial(VGG11),
    }
)

_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def create_model(
    name: str, *, num_classes: int, image_size: int, **options: Any
) -> nn.Module:
    """The Flax module of a model, without weights.

    `model.init(key, images, train=False)` draws weights as the PyTorch definition
    does; `model.apply(variables, images, train=False)` maps normalised NHWC images to
    float32 logits (B, num_classes). In training, `apply` takes `train=True`,
    `mutable=["batch_stats"]` and, for networks with dropout, `rngs={"dropout": key}`.

    Args:
        name: A key of `MODELS`, for example "conv3" or "resnet18_modified".
        num_classes: Length of the logits.
        image_size: Height and width of the images.
        **options: For every model `dtype` ("float32" or "bfloat16": what activations
            are computed in; parameters and logits stay float32) and `axis_name` (None,
            or the pmapped axis over which batch norm averages while training). For
            conv{depth} also `width` (default 128) and `norm` ("batch", "instance" or
            "none").

    Returns:
        A `flax.linen.Module`.

    Raises:
        ValueError: The name, an option or its value is unknown, or the images are too
            small for the model.

    Examples:
        >>> model = create_model("conv3", num_classes=10, image_size=32, width=16)
        >>> variables = init_variables(model, jax.random.key(0), image_size=32)
        >>> model.apply(variables, jnp.zeros((2, 32, 32, 3)), train=False).shape
        (2, 10)
    """
    if name not in MODELS:
        raise registry.unknown_name("model", name, MODELS)
    for argument, value in (("num_classes", num_classes), ("image_size", image_size)):
        if value < 1:
            raise ValueError(f"{name}: {argument} is {value}, but must be positive.")
    builder = MODELS[name]
    fields = set(inspect.signature(builder.func).parameters)
    fixed = {*builder.keywords, "num_classes", "image_size", "parent", "name"}
    known = sorted(fields - fixed)
    for option in options:
        if option not in known:
            raise ValueError(
                f"Model {name!r} has no option {option!r}; it takes {', '.join(known)}."
            )
    if "dtype" in options:
        options["dtype"] = _compute_dtype(name, options["dtype"])
    if "image_size" in fields:
        options["image_size"] = image_size
    return builder(num_classes=num_classes, **options)


def _compute_dtype(model: str, name: str) -> Any:
    if name not in _DTYPES:
        raise ValueError(
            f"{model}: dtype is {name!r}, but must be one of {', '.join(_DTYPES)}."
        )
    return _DTYPES[name]


def init_variables(
    model: nn.Module, key: jax.Array, *, image_size: int, channels: int = 3
) -> dict[str, Any]:
    """Fresh weights and batch statistics of a model.

    Args:
        model: From `create_model`.
        key: Typed random key.
        image_size: Height and width of the images.
        channels: Channels of the images.

    Returns:
        {"params": tree, "batch_stats": tree} of float32 arrays; "batch_stats" is empty
        for a model without batch norm.
    """
    images = jnp.zeros((1, image_size, image_size, channels))
    variables = jax.jit(partial(model.init, train=False))(key, images)
    return {"batch_stats": {}, **variables}
