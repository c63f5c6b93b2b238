"""The loss of trajectory matching, through all steps of a training.

Reference: Cazenavette et al., CVPR 2022, https://arxiv.org/abs/2203.11932, equation 2,
with soft labels as in DATM.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gift_jax.distill.matching import dm


class Learnt(NamedTuple):
    """What is distilled.

    Attributes:
      images: (N, S, S, C) float32 network inputs.
      labels: (N, num_classes) float32 logits.
      rate: Learning rate of training on them, a scalar.
    """

    images: Any
    labels: Any
    rate: Any


class Part(NamedTuple):
    """A part of a trajectory, and how it is to be followed.

    Attributes:
      start: (P,) float32, weights of an expert.
      target: (P,) float32, its weights some epochs later.
      batches: (steps, B) int32 images of each step.
      key: Typed key of the augmentation.
    """

    start: Any
    target: Any
    batches: Any
    key: Any


def matching_loss(
    learnt: Learnt,
    part: Part,
    *,
    model: nn.Module,
    unflatten: Callable[[jax.Array], Any],
) -> jax.Array:
    """Distance from where the expert went to where training on the images ends.

        |student - target|^2 / |start - target|^2

    Each step is computed again in the backward pass, so that only its weights are kept.

    Args:
      learnt: Images, labels and learning rate to train with.
      part: Start, target, batches and augmentation of the training.
      model: The network.
      unflatten: Turns (P,) weights into the network's variables.

    Returns:
      Scalar: 1 where the student stays at the start, 0 where it meets the target.
    """

    def cross_entropy(
        weights: jax.Array, images: jax.Array, labels: jax.Array
    ) -> jax.Array:
        logits = jnp.asarray(model.apply(unflatten(weights), images, train=False))
        return optax.softmax_cross_entropy(logits, jax.nn.softmax(labels)).mean()

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def step(weights: jax.Array, batch: Any) -> tuple[jax.Array, None]:
        chosen, key = batch
        images = dm.augment(key, learnt.images[chosen], alike=False)
        gradient = jax.grad(cross_entropy)(weights, images, learnt.labels[chosen])
        return weights - learnt.rate * gradient, None

    keys = jax.random.split(part.key, len(part.batches))
    student, _ = jax.lax.scan(step, part.start, (part.batches, keys))
    return _squares(student - part.target) / _squares(part.start - part.target)


def _squares(difference: jax.Array) -> jax.Array:
    return jnp.square(difference).sum()
