"""All logits of a split, of students and of teachers."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gift_jax.data import image_split, preprocess
from gift_jax.evaluators.batches import SplitBatches
from gift_jax.runtime import hosts
from gift_jax.runtime.devices import AXIS, replicate
from gift_jax.teachers import FlaxTeacher, Teacher


class Predictions(NamedTuple):
    """Logits of all images of a split, in its order.

    Attributes:
      logits: (N, C) float32.
      labels: (N,) int32 classes.
    """

    logits: np.ndarray
    labels: np.ndarray


def _gathered(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.lax.all_gather((logits, labels), AXIS, tiled=True)


@functools.lru_cache(maxsize=64)
def _mapped(
    model: nn.Module, transform: preprocess.Preprocess, devices: tuple[jax.Device, ...]
) -> Callable:
    def predict(variables: Any, images: jax.Array, labels: jax.Array) -> Any:
        inputs = transform.apply(images.astype(jnp.float32) / 255)
        logits = jnp.asarray(model.apply(variables, inputs, train=False))
        return _gathered(logits, labels)

    mapped = jax.pmap(
        predict,
        axis_name=AXIS,
        in_axes=(None, 0, 0),
        out_axes=None,
        devices=devices,
    )
    return hosts.compiled_together(mapped)


class SplitPredictions:
    """Asks networks about one split; all hosts ask together and get the same.

    Args:
      split: Images and labels.
      transform: From pixels to a student's inputs.
      devices: As of `SplitBatches`, and so are the others.
      batch_size: Images in a batch over all devices.
      workers: Processes to read images with.
    """

    def __init__(
        self,
        split: image_split.ImageSplit,
        transform: preprocess.Preprocess,
        *,
        devices: Sequence[jax.Device],
        batch_size: int = 512,
        workers: int | None = None,
    ) -> None:
        self._transform = transform
        self._devices = tuple(devices)
        self._batches = SplitBatches(
            split, devices=devices, batch_size=batch_size, workers=workers
        )

    def of_model(self, model: nn.Module, variables: Any) -> Predictions:
        """Those of a student.

        Args:
          model: Applied as `model.apply(variables, inputs, train=False)`.
          variables: Its parameters and batch statistics.
        """
        return self._of_network(model, variables, self._transform)

    def of_teacher(self, teacher: Teacher) -> Predictions:
        """Those of a teacher, with its own preprocessing."""
        if isinstance(teacher, FlaxTeacher):
            return self._of_network(
                teacher.model, teacher.variables, teacher.preprocess
            )
        gather = jax.pmap(
            _gathered, axis_name=AXIS, out_axes=None, devices=self._devices
        )

        def ask(images: Any, labels: Any) -> Any:
            pixels = np.asarray(images).reshape(-1, *images.shape[2:])
            logits = np.asarray(teacher.logits(pixels.astype(np.float32) / 255))
            return gather(logits.reshape(*labels.shape, -1), labels)

        return self._collect(ask)

    def _of_network(
        self, model: nn.Module, variables: Any, transform: preprocess.Preprocess
    ) -> Predictions:
        mapped = _mapped(model, transform, self._devices)
        return self._collect(
            functools.partial(mapped, replicate(variables, self._devices))
        )

    def _collect(self, ask: Callable[[Any, Any], Any]) -> Predictions:
        answers = [jax.device_get(ask(*batch)) for batch in self._batches]
        logits, labels = (np.concatenate(part) for part in zip(*answers, strict=True))
        places = self._batches.places
        order = np.argsort(places, kind="stable")[np.sum(places < 0) :]
        return Predictions(logits[order], labels[order])
