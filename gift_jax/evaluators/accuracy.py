"""Top-1 and top-5 accuracy over a test split, every image counted exactly once."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gift_jax.data import image_split, preprocess
from gift_jax.evaluators.answers import SplitAnswers
from gift_jax.runtime.devices import AXIS
from gift_jax.runtime.errors import InputError
from gift_jax.teachers import FlaxTeacher, Teacher
from gift_jax.train.check import check_labels, num_classes
from gift_jax.train.step import TrainState

# Learnt pixels may lie outside [0, 1], but not that far.
_LARGEST_PIXEL = 8

Variables = Mapping[str, Any]
Counts = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Accuracies in percent over `count` images."""

    top1: float
    top5: float
    count: int


def ranks(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Number of classes that are ranked before the right one; 0 is a top-1 hit.

    Equal logits rank by class index, as `argmax` and `top_k` do. A row with NaN
    in the right class's logit is ranked last, so that it never counts as a hit.

    Args:
      logits: (B, C) float.
      labels: (B,) integer classes.

    Returns:
      (B,) int32 in [0, C].
    """
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)
    earlier = jnp.arange(logits.shape[1])[None, :] < labels[:, None]
    behind = (logits < own) | ((logits == own) & ~earlier)
    return jnp.sum(~behind, axis=1, dtype=jnp.int32)


def hits(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether classes are ranked first, and among the first five: (B,) bool each.

    Args:
      logits: (B, C) float.
      labels: (B,) int32 in [0, C).
    """
    rank = ranks(logits, labels)
    # With fewer than 5 classes every finite row is among the first five.
    return rank < 1, rank < min(5, logits.shape[1])


def count_hits(logits: jax.Array, labels: jax.Array) -> Counts:
    """Counts hits in one device's share of a batch, summed over all devices.

    Runs under a mapped axis named "batch".

    Args:
      logits: (B, C) float.
      labels: (B,) int32, -1 for padding.

    Returns:
      Scalars "top1", "top5" and "count".
    """
    top1, top5 = hits(logits, labels)
    real_image = labels >= 0
    counts = {
        "top1": jnp.sum(real_image & top1),
        "top5": jnp.sum(real_image & top5),
        "count": jnp.sum(real_image),
    }
    return jax.lax.psum(counts, AXIS)


def evaluate(
    state: TrainState,
    images: np.ndarray,
    labels: np.ndarray,
    transform: preprocess.Preprocess,
    *,
    batch_size: int = 512,
) -> Accuracy:
    """Measures a student on arrays, on one device.

    Args:
      state: State of the student, from `fit`.
      images: (N, H, W, C), uint8 or float in [0, 1].
      labels: (N,) integer classes.
      transform: Preprocessing of pixels to network inputs, a distilled dataset's
        `preprocess`.
      batch_size: Images in a forward pass.

    Raises:
      InputError: pixels or labels are out of range, or not equally many.

    >>> from gift_jax import models
    >>> from gift_jax.data import Normalization
    >>> from gift_jax.optimizers import OptimizerSpec
    >>> from gift_jax.soft_labels import TrainData
    >>> from gift_jax.train.step import new_student
    >>> images, labels = np.zeros((20, 8, 8, 1), np.uint8), np.arange(20) % 10
    >>> data = TrainData(images, labels, view_key=jax.random.key(0))
    >>> model = models.create_model("conv1", num_classes=10, image_size=8, width=4)
    >>> state = new_student(model, OptimizerSpec("sgd"), data, epochs=1, batch_size=10)
    >>> evaluate(state, images, labels, Normalization(mean=(0.5,), std=(0.5,)))
    Accuracy(top1=10.0, top5=50.0, count=20)
    """
    labels = np.asarray(labels)
    if np.ndim(images) != 4 or not len(images):
        raise InputError(
            f"images are of shape {np.shape(images)}, expected (N, H, W, C) with N > 0"
        )
    size = min(batch_size, len(images))
    scale = _pixel_scale(images)
    # `fit` leaves a copy on every device, each of which would compute all of it.
    variables = jax.device_put(state.evaluation_variables, jax.local_devices()[0])
    classes = num_classes(state.model, variables, images.shape[1:])
    check_labels(labels, len(images), classes)
    network = FlaxTeacher("student", state.model, variables, transform)

    def hits_of(start: int) -> np.ndarray:
        # Filled up with the last image, as a batch of another size would be compiled
        # anew.
        rows = np.minimum(np.arange(start, start + size), len(images) - 1)
        pixels = images[rows].astype(np.float32) / scale
        return np.stack(hits(network.logits(pixels), jnp.asarray(labels[rows])))

    found = [hits_of(start) for start in range(0, len(images), size)]
    of_images = np.concatenate(found, axis=1)[:, : len(images)]
    top1, top5 = (100 * of_images.mean(axis=1)).tolist()
    return Accuracy(top1=top1, top5=top5, count=len(images))


def _pixel_scale(images: np.ndarray) -> int:
    if images.dtype == np.uint8:
        return 255
    largest = np.abs(images).max(initial=0)
    if not largest <= _LARGEST_PIXEL:  # or NaN
        raise InputError(
            f"pixels are {images.dtype} up to {largest:g}, expected uint8, or floats "
            "in [0, 1]: divide by 255, or give uint8"
        )
    return 1


class AccuracyEvaluator:
    """Measures accuracies on one split; padding is not counted.

    Args:
      split: Test images and labels.
      transform: Preprocessing of pixels to network inputs.
      devices: See `SplitAnswers`, as for the remaining arguments.
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
        self._answers = SplitAnswers(
            split,
            transform,
            count_hits,
            devices=devices,
            batch_size=batch_size,
            workers=workers,
        )

    def __call__(self, model: nn.Module, state: TrainState) -> dict[str, float]:
        """Accuracies of a student in percent: "top1" and "top5"."""
        accuracy = self.measure(model, state.evaluation_variables)
        return {"top1": accuracy.top1, "top5": accuracy.top5}

    def measure(self, model: nn.Module, variables: Variables) -> Accuracy:
        """Accuracies of a model; all hosts call it together and get the same.

        Args:
          model: Applied as `model.apply(variables, inputs, train=False)`.
          variables: Its parameters and batch statistics.

        Returns:
          Accuracies over the whole split.
        """
        return self._measure(self._answers.of_model(model, variables))

    def measure_teacher(self, teacher: Teacher) -> Accuracy:
        """Accuracies of a teacher with its own preprocessing, as `measure`."""
        return self._measure(self._answers.of_teacher(teacher))

    def _measure(self, answers: Iterable[Counts]) -> Accuracy:
        total = {"top1": 0, "top5": 0, "count": 0}
        for counts in answers:
            total = {name: total[name] + int(counts[name]) for name in total}
        num_images = len(self._answers.batches)
        if total["count"] != num_images:
            raise AssertionError(
                f"counted {total['count']} of {num_images} test images"
            )
        return Accuracy(
            top1=100 * total["top1"] / total["count"],
            top5=100 * total["top5"] / total["count"],
            count=total["count"],
        )
