"""Answers of networks and teachers to the images of a split, reduced over devices."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gift_jax.data import image_split, preprocess
from gift_jax.evaluators.batches import shared_batches
from gift_jax.runtime.devices import fetched, mapped, replicate
from gift_jax.teachers import FlaxTeacher, Teacher

# Reduces a device's share of a batch, logits (B, C) float and labels (B,) int32, -1 for
# padding, to a result that is the same on all devices, under a mapped axis named
# "batch".
Reduce = Callable[[jax.Array, jax.Array], Any]


def answer(
    variables: Any,
    images: jax.Array,
    labels: jax.Array,
    *,
    model: nn.Module,
    transform: preprocess.Preprocess,
    reduce: Reduce,
) -> Any:
    """The answer of a network to one device's share of a batch, reduced.

    Args:
      variables: Variables of the model.
      images: (B, H, W, C) uint8.
      labels: (B,) int32, -1 for padding.
      model: Applied as `model.apply(variables, inputs, train=False)`.
      transform: Preprocessing of pixels to its inputs.
      reduce: See `Reduce`.
    """
    inputs = transform.apply(images.astype(jnp.float32) / 255)
    return reduce(jnp.asarray(model.apply(variables, inputs, train=False)), labels)


@functools.lru_cache(maxsize=8)
def _program(
    model: nn.Module,
    transform: preprocess.Preprocess,
    reduce: Reduce,
    devices: tuple[jax.Device, ...],
) -> Callable:
    return mapped(
        functools.partial(answer, model=model, transform=transform, reduce=reduce),
        in_axes=(None, 0, 0),
        out_axes=None,
        devices=devices,
    )


class SplitAnswers:
    """Runs networks on one split; all hosts do it together and get the same.

    Args:
      split: Images and labels.
      transform: Preprocessing of pixels to a student's inputs.
      reduce: See `Reduce`; a module-level function, as its compiled programs are kept.
      devices: See `SplitBatches`, as for the remaining arguments.
      batch_size: Images in a batch over all devices.
      workers: Processes to read images with.

    Attributes:
      batches: Batches of the split.
    """

    def __init__(
        self,
        split: image_split.ImageSplit,
        transform: preprocess.Preprocess,
        reduce: Reduce,
        *,
        devices: Sequence[jax.Device],
        batch_size: int = 512,
        workers: int | None = None,
    ) -> None:
        self._transform = transform
        self._reduce = reduce
        self._devices = tuple(devices)
        self.batches = shared_batches(split, self._devices, batch_size, workers)

    def of_model(self, model: nn.Module, variables: Any) -> Iterator[Any]:
        """Reduced answers of a student to every batch, on the host.

        Args:
          model: Applied as `model.apply(variables, inputs, train=False)`.
          variables: Its parameters and batch statistics.
        """
        return self._of_network(model, variables, self._transform)

    def of_teacher(self, teacher: Teacher) -> Iterator[Any]:
        """As `of_model`, but of a teacher with its own preprocessing."""
        if isinstance(teacher, FlaxTeacher):
            return self._of_network(
                teacher.model, teacher.variables, teacher.preprocess
            )
        reduce = mapped(self._reduce, out_axes=None, devices=self._devices)

        def ask(images: Any, labels: Any) -> Any:
            pixels = np.asarray(images).reshape(-1, *images.shape[2:])
            logits = np.asarray(teacher.logits(pixels.astype(np.float32) / 255))
            return reduce(logits.reshape(*labels.shape, -1), labels)

        return self._to_batches(ask)

    def _of_network(
        self, model: nn.Module, variables: Any, transform: preprocess.Preprocess
    ) -> Iterator[Any]:
        program = _program(model, transform, self._reduce, self._devices)
        replicated = replicate(variables, self._devices)
        return self._to_batches(functools.partial(program, replicated))

    def _to_batches(self, ask: Callable[[Any, Any], Any]) -> Iterator[Any]:
        return fetched((ask(*batch) for batch in self.batches), self._devices)
