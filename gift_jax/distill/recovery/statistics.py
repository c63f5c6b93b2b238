"""Statistics of what the layers of a network are fed, and their distance from others.

They are read from outside, by intercepting the methods of the network's modules
(`nn.intercept_methods`), so any Flax network has them: those of this project, imported
weights, and the user's own.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gift_jax.data.info import DatasetInfo
from gift_jax.models import convnet, norms
from gift_jax.models.variables import Variables
from gift_jax.teachers import TeacherError
from gift_jax.teachers.ensemble import Ensemble
from gift_jax.teachers.flax_teacher import variable_shapes

# The method of each layer that is given its input.
_BATCH_NORMS = {norms.BatchNorm: "affine", nn.BatchNorm: "__call__"}
_CONVOLUTIONS = {nn.Conv: "__call__", convnet.Conv: "__call__"}
_METHODS = {**_BATCH_NORMS, **_CONVOLUTIONS}

# Weight of the first layer's distance; of the others it is 1. `first_bn_multiplier` of
# SRe2L's `recover/data_synthesis.py`, and `--first-multiplier` of G-VBSM.
FIRST_WEIGHT = 10.0


class Moments(NamedTuple):
    """Mean and biased variance, (..., C) float32 each."""

    mean: jax.Array
    variance: jax.Array


class Layer(NamedTuple):
    """What a batch norm or a convolution is fed.

    Attributes:
      features: (B, ..., C) float.
      offset: (C,) float32 or zero, that the layer adds to the features.
      running: Running statistics of a batch norm; None for convolutions.
    """

    features: jax.Array
    offset: jax.Array | float
    running: Moments | None


def with_layers(apply: Callable[[], Any]) -> tuple[Any, list[Layer]]:
    """Calls a function, and keeps what batch norms and convolutions in it are fed.

    Args:
      apply: Applies a Flax network.

    Returns:
      What `apply` returns, and the layers in the order of the calls.
    """
    found: list[Layer] = []
    inside: list[nn.Module] = []  # layers that are being called

    def keep(
        next_method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        module, kind = context.module, _kind(context.module)
        # A subclass that calls its parent's method is one layer.
        is_inside = any(module is one for one in inside)
        if _METHODS.get(kind) != context.method_name or is_inside:
            return next_method(*args, **kwargs)
        running, offset = None, 0.0
        if kind in _BATCH_NORMS:
            kept = module.variables["batch_stats"]
            running = Moments(kept["mean"], kept["var"])
        if kind is norms.BatchNorm and len(args) > 1:
            offset = args[1]  # a bias that it is given besides the features
        found.append(Layer(args[0], offset, running))
        inside.append(module)
        result = next_method(*args, **kwargs)
        inside.pop()
        return result

    with nn.intercept_methods(keep):
        return apply(), found


def _kind(module: nn.Module) -> type:
    """The class in `_METHODS` that a module is an instance of, or else its own."""
    kinds = type(module).__mro__
    return next((kind for kind in kinds if kind in _METHODS), kinds[0])


def logits_and_layers(
    model: nn.Module, variables: Variables, images: jax.Array
) -> tuple[jax.Array, list[Layer]]:
    """Logits of normalised images, and what the layers of the network are fed."""
    return with_layers(lambda: jnp.asarray(model.apply(variables, images, train=False)))


def moments(features: jax.Array, *, of_images: bool = False) -> Moments:
    """Moments of (B, ..., C) over all axes but the last; of images, not over B."""
    axes = tuple(range(int(of_images), features.ndim - 1))
    features = features.astype(jnp.float32)
    return Moments(features.mean(axes), features.var(axes))


def channel_moments(layer: Layer, *, of_images: bool = False) -> Moments:
    """Moments of each channel over the batch, (C,); or for every image, (B, C)."""
    found = moments(layer.features, of_images=of_images)
    offset = jnp.broadcast_to(layer.offset, found.mean.shape)
    return found._replace(mean=found.mean + offset)


def patch_moments(
    features: jax.Array, side: int, *, of_images: bool = False
) -> Moments:
    """Moments of each patch of side x side pixels, over batch, channels and pixels.

    Maps whose sides are no multiple are first enlarged to the next, bilinearly
    (`ConvFeatureHook` in G-VBSM's `recover/utils.py`).

    Args:
      features: (B, H, W, C) float.
      side: Side of a patch in pixels.
      of_images: Whether they are taken for every image by itself, not over the batch.

    Returns:
      (P,) arrays for P patches, row by row; with `of_images` (B, P).
    """
    batch, height, width, channels = features.shape
    rows, columns = -(-height // side), -(-width // side)
    shape = (batch, rows * side, columns * side, channels)
    if shape != features.shape:
        features = jax.image.resize(features, shape, "linear")
    patches = features.reshape(batch, rows, side, columns, side, channels)
    patches = patches.transpose(0, 2, 4, 5, 1, 3).reshape(batch, -1, rows * columns)
    return moments(patches, of_images=of_images)


def distance(found: Moments, expected: Moments) -> jax.Array:
    """Euclidean distances of means and of variances, added."""
    return _norm(found.mean - expected.mean) + _norm(found.variance - expected.variance)


def _norm(difference: jax.Array) -> jax.Array:
    return optax.safe_norm(difference, 0.0)  # whose gradient at zero is zero


def batch_norm_loss(layers: Sequence[Layer]) -> Any:
    """How far a batch is from the statistics of the teacher's training.

    Args:
      layers: Layers in order; convolutions are skipped.

    Returns:
      Scalar: the sum of `distance` over the layers, the first `FIRST_WEIGHT` times.
    """
    distances = [
        distance(channel_moments(layer), layer.running)
        for layer in layers
        if layer.running is not None
    ]
    return FIRST_WEIGHT * distances[0] + sum(distances[1:], jnp.float32(0))


def check_network(
    model: nn.Module, method: str, info: DatasetInfo, *, convolutions: bool = False
) -> None:
    """Raises TeacherError for a network without layers whose statistics are matched.

    Args:
      model: The network, or an ensemble.
      method: Name of the method, for the message.
      info: The real dataset.
      convolutions: Whether convolutions suffice; otherwise only batch norms do.
    """
    if isinstance(model, Ensemble):
        for member in model.members:
            check_network(member, method, info, convolutions=convolutions)
        return
    shape = info.image_shape

    def layers(variables: Variables, images: jax.Array) -> list[Any]:
        found = logits_and_layers(model, variables, images)[1]
        return found if convolutions else [layer.running for layer in found]

    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    if jax.tree.leaves(jax.eval_shape(layers, variable_shapes(model, shape), images)):
        return
    raise TeacherError(
        f"{method} recovers images from the statistics of batch norms"
        f"{' and convolutions' if convolutions else ''}, and the teacher, a "
        f"{type(model).__name__}, has none: give it batch norm, as with "
        "teacher.norm=batch"
    )
