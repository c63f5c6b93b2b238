"""Statistics of what the layers of a network are fed, and their distance from others.

They are seen from outside, by intercepting the methods of its modules
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
from gift_jax.models import norms
from gift_jax.models.variables import Variables
from gift_jax.teachers import TeacherError
from gift_jax.teachers.flax_teacher import variable_shapes

# The method of each batch norm that is given its input.
_METHODS = {norms.BatchNorm: "affine", nn.BatchNorm: "__call__"}


class Moments(NamedTuple):
    """Mean and biased variance, (C,) float32 each."""

    mean: jax.Array
    variance: jax.Array


class BatchNormInput(NamedTuple):
    """What one batch norm is fed.

    Attributes:
      batch: Moments of the batch, over images and pixels.
      running: Those that the network has kept of its training.
    """

    batch: Moments
    running: Moments


def moments(features: jax.Array) -> Moments:
    """Over all axes but the last of (..., C)."""
    axes = tuple(range(features.ndim - 1))
    features = features.astype(jnp.float32)
    return Moments(features.mean(axes), features.var(axes))


def with_batch_norms(apply: Callable[[], Any]) -> tuple[Any, list[BatchNormInput]]:
    """Calls a function, and keeps what the batch norms in it are fed.

    Args:
      apply: Applies a Flax network.

    Returns:
      What it returns, and the inputs in the order of the calls.
    """
    found: list[BatchNormInput] = []

    def keep(
        next_method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        module = context.module
        if _METHODS.get(type(module)) == context.method_name:
            batch = moments(args[0])
            if len(args) > 1:  # a bias that the norm is told of, `norms.BatchNorm`
                batch = batch._replace(mean=batch.mean + args[1])
            stored = module.variables["batch_stats"]
            running = Moments(stored["mean"], stored["var"])
            found.append(BatchNormInput(batch, running))
        return next_method(*args, **kwargs)

    with nn.intercept_methods(keep):
        return apply(), found


def distance(found: Moments, expected: Moments) -> jax.Array:
    """Euclidean distances of means and of variances, added."""
    return _norm(found.mean - expected.mean) + _norm(found.variance - expected.variance)


def _norm(difference: jax.Array) -> jax.Array:
    return optax.safe_norm(difference, 0.0)  # of which the gradient at zero is zero


def batch_norm_loss(
    layers: Sequence[BatchNormInput], *, first_weight: float = 10.0
) -> jax.Array:
    """How far a batch is from the statistics of the teacher's training.

    Args:
      layers: In order.
      first_weight: Of the first layer; of the others it is 1. 10 is
        `first_bn_multiplier` of SRe2L's `recover/data_synthesis.py`.

    Returns:
      Scalar: the sum of `distance` over the layers.
    """
    distances = [distance(layer.batch, layer.running) for layer in layers]
    return first_weight * distances[0] + sum(distances[1:], jnp.float32(0))


def check_network(model: nn.Module, method: str, info: DatasetInfo) -> None:
    """Raises TeacherError for a network without batch norm."""
    shape = info.image_shape

    def layers(variables: Variables, images: jax.Array) -> list[BatchNormInput]:
        def apply() -> Any:
            return model.apply(variables, images, train=False)

        return with_batch_norms(apply)[1]

    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    if not jax.eval_shape(layers, variable_shapes(model, shape), images):
        raise TeacherError(
            f"{method} recovers images from the statistics of batch norms, and the "
            f"teacher, a {type(model).__name__}, has none: give it batch norm, as "
            "with teacher.norm=batch"
        )
