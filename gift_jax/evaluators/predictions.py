"""All logits of a split, of students and of teachers."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from gift_jax.data import image_split, preprocess
from gift_jax.evaluators.answers import SplitAnswers
from gift_jax.runtime.devices import AXIS
from gift_jax.teachers import Teacher


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


class SplitPredictions:
    """Runs networks on one split; all hosts do it together and get the same.

    Args:
      split: Images and labels.
      transform: Preprocessing of pixels to a student's inputs.
      **options: See `SplitAnswers`.
    """

    def __init__(
        self,
        split: image_split.ImageSplit,
        transform: preprocess.Preprocess,
        **options: Any,
    ) -> None:
        self._answers = SplitAnswers(split, transform, _gathered, **options)

    def of_model(self, model: nn.Module, variables: Any) -> Predictions:
        """Logits of a student, see `SplitAnswers.of_model`."""
        return self._collect(self._answers.of_model(model, variables))

    def of_teacher(self, teacher: Teacher) -> Predictions:
        """Logits of a teacher, with its own preprocessing."""
        return self._collect(self._answers.of_teacher(teacher))

    def _collect(self, answers: Iterable[tuple[np.ndarray, np.ndarray]]) -> Predictions:
        logits, labels = (np.concatenate(part) for part in zip(*answers, strict=True))
        places = self._answers.batches.places
        order = np.argsort(places, kind="stable")[np.sum(places < 0) :]
        return Predictions(logits[order], labels[order])
