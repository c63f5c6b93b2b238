"""DM: the mean features of a class are those of its real images.

Reference: Zhao and Bilen, "Dataset Condensation with Distribution Matching", WACV 2023,
https://arxiv.org/abs/2110.04181, and `main_DM.py` of its official code. One thing
differs: an iteration has one augmentation for all classes, there it has one for each.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gift_jax.augment import AugmentSpec
from gift_jax.augment.spec import DIFFAUG_OPERATIONS
from gift_jax.augment.views import augment_image
from gift_jax.data.info import DatasetInfo
from gift_jax.distill.matching import base


@dataclasses.dataclass(frozen=True)
class Dm(base.Matching):
    """Matches mean features, in a new network every iteration.

    Attributes:
      ipc: Images per class, at least 1; they begin as real images.
      iterations: Number of networks; 20,000 in the official code.
      learning_rate: Learning rate of SGD with momentum 0.5; 1 in the official code.
      batch_size: Real images of a class in a step, see `base.Matching`.
      width: Width of the ConvNet.
    """

    iterations: int = 20_000
    learning_rate: float = 1.0

    def make_step(self, info: DatasetInfo) -> Any:
        """One step in one network."""
        model = self.network(info)

        def step(
            state: base.State, real: jax.Array, key: jax.Array, done: jax.Array
        ) -> tuple[base.State, jax.Array]:
            variables = base.draw_network(model, key, info)
            # One class at a time: a hundred at once would take tens of GB.
            expected = jax.lax.map(
                lambda of_class: real_mean(model, variables, info, key, of_class), real
            )

            def loss(images: jax.Array) -> jax.Array:
                images = images.reshape(len(real), -1, *images.shape[1:])
                found = class_means(model, variables, augment(key, images))
                return distance(found, expected)

            moved, value = self.descend(state, loss)
            return moved, value / len(real)

        return step


def augment(key: jax.Array, images: jax.Array, *, alike: bool = True) -> jax.Array:
    """Applies one of DSA's six operations to all images.

    Args:
      key: Typed key; the same gives the same operation.
      images: (..., S, S, C) float32, normalised.
      alike: Whether its parameters, too, are the same for all images.
    """
    flat = images.reshape(-1, *images.shape[-3:])
    keys = key if alike else jax.random.split(key, len(flat))

    def by(name: str) -> Callable[[jax.Array], jax.Array]:
        one = functools.partial(augment_image, spec=AugmentSpec(diffaug=name))
        return functools.partial(jax.vmap(one, (None if alike else 0, 0)), keys)

    choice = jax.random.randint(key, (), 0, len(DIFFAUG_OPERATIONS))
    augmented = jax.lax.switch(choice, [by(name) for name in DIFFAUG_OPERATIONS], flat)
    return augmented.reshape(images.shape)


def features(model: nn.Module, variables: Any, images: jax.Array) -> jax.Array:
    """Inputs of a network's last dense layer, (B, F)."""
    found: list[jax.Array] = []

    def keep(next_method: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, nn.Dense) and context.method_name == "__call__":
            found.append(args[0])
        return next_method(*args, **kwargs)

    with nn.intercept_methods(keep):
        model.apply(variables, images, train=False)
    return found[-1]


def real_mean(
    model: nn.Module,
    variables: Any,
    info: DatasetInfo,
    key: jax.Array,
    pixels: jax.Array,
) -> jax.Array:
    """Mean features (F,) of (B, S, S, C) uint8 images of one class, augmented."""
    images = augment(key, base.normalized(info, pixels))
    return features(model, variables, images).mean(0)


def class_means(model: nn.Module, variables: Any, images: jax.Array) -> jax.Array:
    """Mean features (C, F) of (C, B, S, S, channels) images."""
    flat = images.reshape(-1, *images.shape[2:])
    of_images = features(model, variables, flat)
    return of_images.reshape(*images.shape[:2], -1).mean(1)


def distance(found: jax.Array, expected: jax.Array) -> jax.Array:
    """Squared distance of mean features, summed over classes."""
    return jnp.square(found - expected).sum()
