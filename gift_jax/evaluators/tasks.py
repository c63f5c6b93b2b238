"""Accuracy on the classes of every step of a class-incremental training."""

from typing import Any

import flax.linen as nn
import numpy as np

from gift_jax.data import image_split, preprocess
from gift_jax.evaluators.predictions import SplitPredictions
from gift_jax.runtime.errors import InputError
from gift_jax.train.step import TrainState


class TaskAccuracyEvaluator:
    """Measures a student of several tasks, on the images of each.

    Args:
      split: Test images of all tasks so far; the labels are in order of arrival.
      transform: Preprocessing of pixels to network inputs.
      classes_per_step: Number of classes of a task; those of task i begin at i times
        this number.
      **options: See `SplitPredictions`.

    Raises:
      InputError: the job is not a class-incremental one.
    """

    def __init__(
        self,
        split: image_split.ImageSplit,
        transform: preprocess.Preprocess,
        *,
        classes_per_step: int | None,
        **options: Any,
    ) -> None:
        if classes_per_step is None:
            raise InputError(
                "the evaluator 'task_accuracy' measures class-incremental training, "
                "but continual.steps is 0: set it, or leave the evaluator out"
            )
        self._classes_per_step = classes_per_step
        self._predictions = SplitPredictions(split, transform, **options)

    def __call__(self, model: nn.Module, state: TrainState) -> dict[str, float]:
        """Percentages: "top1_task1" on the first step's classes, and so on."""
        logits, labels = self._predictions.of_model(model, state.evaluation_variables)
        hits = logits.argmax(axis=1) == labels
        tasks = labels // self._classes_per_step
        return {
            f"top1_task{task + 1}": 100 * float(np.mean(hits[tasks == task]))
            for task in range(tasks.max() + 1)
        }
