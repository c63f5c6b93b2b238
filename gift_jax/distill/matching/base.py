"""What the matching distillers share: random networks, real batches, the loop.

Reference: the official code of DC, DSA and DM,
https://github.com/VICO-UoE/DatasetCondensation: `main.py` and `main_DM.py`.
"""

import abc
import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gift_jax import models, streams
from gift_jax.data.info import DatasetInfo
from gift_jax.data.real import RealDataset
from gift_jax.distill import base
from gift_jax.distill.unfinished import Unfinished
from gift_jax.distilled import DistilledDataset
from gift_jax.models.variables import Variables
from gift_jax.teachers import Teacher

_MOMENTUM = 0.5  # of the images' SGD, in both files
# Purposes of a key: the starting images are drawn without one.
_NETWORK, _REAL = 0, 1


class State(NamedTuple):
    """Images (N, S, S, C) float32, normalised, their optimizer, a method's memory."""

    images: jax.Array
    optimizer: Any
    memory: Any


@dataclasses.dataclass(frozen=True)
class Matching(abc.ABC):
    """Matches distilled images with real batches in networks drawn at random.

    Attributes:
      ipc: Images per class, at least 1; they begin as real images.
      iterations: Number of networks that are drawn.
      learning_rate: Learning rate of the images, by SGD with momentum 0.5.
      batch_size: Real images of each class in a step; at most as many as the smallest
        class has.
      width: Width of the ConvNet.

    Raises:
      InputError: an option is negative, or of a wrong type.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"train_images"})
    resumable: ClassVar[bool] = True

    ipc: int
    iterations: int = 1_000
    learning_rate: float = 0.1
    batch_size: int = 256
    width: int = 128

    def __post_init__(self) -> None:
        """Checks the options."""
        whole = ("ipc", "iterations", "batch_size", "width")
        base.check_options(self, positive=whole)

    def check(self, data: RealDataset) -> None:
        """Raises InputError for too few images of a class, too small or too many."""
        base.check_class_sizes(data, self.ipc)
        base.check_memory(data)
        self.network(data.info)

    def make(
        self,
        data: RealDataset,
        *,
        teacher: Teacher | None = None,
        seed: int,
        on_progress: base.OnProgress | None = None,
        directory: pathlib.Path | None = None,
    ) -> DistilledDataset:
        """Makes the images, see `base.Distiller`; progress counts steps of the images.

        Returns:
          num_classes * ipc images, class by class: float pixels as they were learnt,
          which go beyond [0, 1] as the official ones do.

        Raises:
          InputError: a class has fewer than `ipc` images.
        """
        members = base.class_members(data, self.ipc)
        info, images = data.info, data.train.all_images()
        total = self.iterations * self.steps
        unfinished = Unfinished(directory)
        unfinished.claim(lambda: base.recipe(self, data, seed))
        key = streams.stream_key(seed, streams.Purpose.DISTILLATION)
        rng = np.random.default_rng(seed)
        first = np.concatenate([rng.permutation(of)[: self.ipc] for of in members])
        start = jax.device_get(self.start(info, images[first]))
        step = jax.jit(self.make_step(info), donate_argnums=0)

        def advance(state: State, done: int) -> tuple[State, Any, int]:
            step_key = jax.random.fold_in(key, done)
            real = images[self._draw(members, seed, done)]
            state, loss = step(state, real, step_key, np.int32(done))
            return state, {"loss": jax.device_get(loss)}, done + 1

        state = unfinished.run("images", start, total, advance, on_progress)
        pixels = info.normalization.invert(np.asarray(state.images))
        return base.distilled_dataset(self, data, [pixels], seed=seed)

    def start(self, info: DatasetInfo, pixels: Any) -> State:
        """The state before the first step, of (N, S, S, C) uint8 pixels."""
        images = normalized(info, jnp.asarray(pixels))
        return State(images, self.optimizer.init(images), self.memory(info))

    def descend(
        self, state: State, loss: Callable[[jax.Array], jax.Array]
    ) -> tuple[State, jax.Array]:
        """One step of the images down a loss; memory stays. Also gives the loss."""
        value, gradient = jax.value_and_grad(loss)(state.images)
        updates, optimizer = self.optimizer.update(gradient, state.optimizer)
        images = jnp.asarray(optax.apply_updates(state.images, updates))
        return state._replace(images=images, optimizer=optimizer), value

    def _draw(self, members: list[np.ndarray], seed: int, done: int) -> np.ndarray:
        """(num_classes, B) indices of real images, without repeats in a class."""
        size = min(self.batch_size, *map(len, members))
        rng = np.random.default_rng([seed, _REAL, done])
        return np.stack([rng.choice(of, size, replace=False) for of in members])

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Optimizer of the images."""
        return optax.sgd(self.learning_rate, momentum=_MOMENTUM)

    @property
    def steps(self) -> int:
        """Steps of the images in one iteration, which has one network."""
        return 1

    def network(self, info: DatasetInfo) -> nn.Module:
        """The official `ConvNet`: three blocks with instance norm."""
        return models.create_model(
            "conv3",
            num_classes=info.num_classes,
            image_size=info.image_size,
            width=self.width,
            norm="instance",
        )

    def memory(self, info: DatasetInfo) -> Any:
        """What is kept besides the images; its value before the first step."""
        return ()

    @abc.abstractmethod
    def make_step(self, info: DatasetInfo) -> Any:
        """`step(state, real, key, done)` -> state, loss.

        `real` are (num_classes, B, S, S, C) uint8, `key` is that of this step.
        """


def draw_network(model: nn.Module, key: jax.Array, info: DatasetInfo) -> Variables:
    """Random weights, as PyTorch draws them; can be traced."""
    shape = (1, *info.image_shape)
    key = jax.random.fold_in(key, _NETWORK)
    return dict(model.init(key, jnp.zeros(shape), train=False))


def normalized(info: DatasetInfo, real: jax.Array) -> jax.Array:
    """Network inputs of (..., S, S, C) uint8 pixels."""
    return jnp.asarray(info.normalization.apply(real.astype(jnp.float32) / 255))
