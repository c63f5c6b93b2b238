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
from gift_jax.models.vgg import CONVOLUTIONS, VGG
from gift_jax.models.vit import VisionTransformer
from gift_jax.models.wide_resnet import WideResNet
from gift_jax.runtime.devices import AXIS
from gift_jax.runtime.errors import InputError

_RESNETS = {
    "resnet18": partial(ResNet, stage_sizes=(2, 2, 2, 2), bottleneck=False),
    "resnet34": partial(ResNet, stage_sizes=(3, 4, 6, 3), bottleneck=False),
    "resnet50": partial(ResNet, stage_sizes=(3, 4, 6, 3), bottleneck=True),
    "resnet101": partial(ResNet, stage_sizes=(3, 4, 23, 3), bottleneck=True),
}

_VIT = partial(VisionTransformer, depth=12)

#: Every model by name: its class with the arguments that the name stands for.
MODELS: Mapping[str, partial[Any]] = MappingProxyType(
    {
        **{f"conv{depth}": partial(ConvNet, depth=depth) for depth in range(1, 9)},
        **{
            name: partial(net, modified=False, norm="batch")
            for name, net in _RESNETS.items()
        },
        **{
            f"{name}_modified": partial(net, modified=True)
            for name, net in _RESNETS.items()
        },
        **{
            f"resnet{6 * blocks + 2}": partial(CifarResNet, blocks=blocks)
            for blocks in (3, 5, 7, 9, 18)
        },
        "wrn": partial(WideResNet),
        "mobilenet_v2": partial(MobileNetV2, modified=False),
        "mobilenet_v2_modified": partial(MobileNetV2, modified=True),
        "efficientnet_b0": partial(EfficientNetB0),
        **{
            f"vgg{depth}{suffix}": partial(VGG, depth=depth, batch_norm=bool(suffix))
            for suffix in ("", "_bn")
            for depth in CONVOLUTIONS
        },
        "vit_t_4": partial(_VIT, width=192, heads=3, patch_size=4),
        "vit_t_16": partial(_VIT, width=192, heads=3, patch_size=16),
        "vit_s_16": partial(_VIT, width=384, heads=6, patch_size=16),
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
      name: A key of `MODELS`, for example "conv3" or "resnet18_modified"; or
        "package.module:attribute", a user's Flax module class, or a function that
        returns such a module. It is called with `num_classes` and, if its signature has
        them, `image_size`, `axis_name` and `dtype`.
      num_classes: Length of the logits.
      image_size: Height and width of the images.
      **options: For every model `dtype` ("float32" or "bfloat16": what activations
          are computed in; parameters and logits stay float32) and `axis_name` (None,
          or the pmapped axis over which batch norm averages while training). For
          those of `model_options`: conv{depth} has `width` (default 128) and `norm`
          ("batch", "instance" or "none"), resnet{depth}_modified `norm` ("batch" or
          "instance"), resnet20 to resnet110 `shortcut` ("pad" or "projection"), wrn
          `depth` and `widen`, mobilenet_v2 `width_mult`, vgg{depth} and
          vgg{depth}_bn `head` ("imagenet", "cifar" or "linear").

    Returns:
      A `flax.linen.Module`.

    Raises:
      InputError: The name, an option or its value is unknown, or the images are too
        small for the model; or user code returns no module.

    Examples:
        >>> model = create_model("conv1", num_classes=10, image_size=8, width=4)
        >>> variables = init_variables(model, jax.random.key(0), image_size=8)
        >>> model.apply(variables, jnp.zeros((2, 8, 8, 3)), train=False).shape
        (2, 10)
    """
    for argument, value in (("num_classes", num_classes), ("image_size", image_size)):
        if value < 1:
            raise InputError(f"{name}: {argument} is {value}, but must be positive.")
    builder, known = _builder(name)
    if name not in MODELS:
        # Every network is given these two, but a user's need not take them.
        options = {
            option: value
            for option, value in options.items()
            if option in known
            or not (option == "axis_name" or (option, value) == ("dtype", "float32"))
        }
    takes = sorted(known.keys() - {"num_classes", "image_size"})
    for option in options:
        if option not in takes:
            raise InputError(
                f"Model {name!r} has no option {option!r}; it takes {', '.join(takes)}."
            )
    if "dtype" in options:
        options["dtype"] = _compute_dtype(name, options["dtype"])
    if "image_size" in known:
        options["image_size"] = image_size
    if name in MODELS:
        return builder(num_classes=num_classes, **options)
    try:
        model = builder(num_classes=num_classes, **options)
    except Exception as error:
        raise InputError(
            f"model {name!r} cannot be made with num_classes={num_classes} and "
            f"{options}: {error}"
        ) from error
    if not isinstance(model, nn.Module):
        raise InputError(
            f"model {name!r} gives a {type(model).__name__}, expected a Flax module"
        )
    return model


def model_options(name: str) -> dict[str, Any]:
    """The options of a model that change its parameters, with their defaults.

    Raises:
      InputError: There is no such model.

    Examples:
        >>> model_options("conv3")
        {'width': 128, 'norm': 'batch'}
    """
    _, known = _builder(name)
    others = ("num_classes", "image_size", "axis_name", "dtype")
    return {
        option: default
        for option, default in known.items()
        if option not in others and default is not inspect.Parameter.empty
    }


def _builder(name: str) -> tuple[Any, dict[str, Any]]:
    """The builder of a model, and the arguments that it takes with their defaults."""
    builder: Any = registry.find("model", name, MODELS)
    try:
        parameters = inspect.signature(builder).parameters.values()
    except (TypeError, ValueError) as error:
        raise InputError(f"model {name!r} has no arguments: {error}") from error
    fixed = {"parent", "name", *getattr(builder, "keywords", ())}
    return builder, {
        p.name: p.default
        for p in parameters
        if p.name not in fixed and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }


def check_model(
    name: str, model: nn.Module, *, num_classes: int, image_size: int, channels: int
) -> None:
    """Refuses a module that cannot be called as those of `create_model` are.

    Args:
      name: Name of the model, for messages.
      model: The module.
      num_classes: Length of the logits.
      image_size: Height and width of the images.
      channels: Channels of the images.

    Raises:
      InputError: It cannot be called so, has variables other than parameters and
          batch statistics, or does not give float logits (B, num_classes).
    """

    def call(images: jax.Array) -> tuple[Any, Any, Any]:
        key = jax.random.key(0)
        variables = model.init(key, images, train=False)
        apply = partial(model.apply, variables, images)
        trained, _ = apply(train=True, mutable=["batch_stats"], rngs={"dropout": key})
        return variables, apply(train=False), trained

    images = jax.ShapeDtypeStruct((1, 2, image_size, image_size, channels), jnp.float32)
    try:
        variables, *outputs = jax.eval_shape(jax.vmap(call, axis_name=AXIS), images)
    except Exception as error:
        raise InputError(
            f"model {name!r} cannot be called with images and train=True or False: "
            f"{error}"
        ) from error
    try:
        hash(model)
    except TypeError as error:
        raise InputError(
            f"model {name!r} cannot be hashed ({error}), which JAX needs to compile it "
            "once: let its fields be numbers, texts and tuples, not arrays or lists"
        ) from error
    others = set(variables) - {"params", "batch_stats"}
    if others:
        raise InputError(
            f"model {name!r} has variables {', '.join(sorted(others))}, expected no "
            "others than params and batch_stats"
        )
    for logits in outputs:
        dtype = getattr(logits, "dtype", jnp.dtype(object))
        if not (
            getattr(logits, "shape", None) == (1, 2, num_classes)
            and jnp.issubdtype(dtype, jnp.floating)
        ):
            raise InputError(
                f"model {name!r} gives {_described(logits)} for 2 images, expected "
                f"float logits (2, {num_classes})"
            )


def _described(output: Any) -> str:
    if hasattr(output, "shape"):
        return f"{output.dtype} {output.shape[1:]}"
    return f"a {type(output).__name__}"


def _compute_dtype(model: str, name: str) -> Any:
    if not isinstance(name, str) or name not in _DTYPES:
        raise registry.unknown_name(f"dtype of {model}", str(name), _DTYPES)
    return _DTYPES[name]


@partial(jax.jit, static_argnums=(0, 2))
def variables_for(
    model: nn.Module, key: jax.Array, image_shape: tuple[int, int, int]
) -> dict[str, Any]:
    """`init_variables` for images (H, W, C), compiled once for equal models."""
    images = jnp.zeros((1, *image_shape))
    return {"batch_stats": {}, **model.init(key, images, train=False)}


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
    return variables_for(model, key, (image_size, image_size, channels))
