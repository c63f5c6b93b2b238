"""`gift_jax.diagnostics` of a student: information, calibration, lengths."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from gift_jax.data import image_split, preprocess
from gift_jax.diagnostics import calibration, information, lengths
from gift_jax.evaluators.predictions import Predictions, SplitPredictions
from gift_jax.teachers import Teacher
from gift_jax.train.step import TrainState

# Divisor of the cosines in InfoNCE, and number of images in a block, B: the bound is at
# most log B, 6.2 nats, which is above the log C of up to 500 classes.
TEMPERATURE, BLOCK = 0.1, 500


class DiagnosticsEvaluator:
    """Measures a student's logits on one split, alone and against the teacher's.

    Args:
      split: Test images and labels.
      transform: Preprocessing of pixels to a student's inputs.
      teacher: Teacher whose logits of the same images, whole and not augmented, are the
        soft labels; None leaves out the numbers that need them.
      held_out: Images that the temperature of the softmax is fitted on.
      **options: See `SplitPredictions`.
    """

    def __init__(
        self,
        split: image_split.ImageSplit,
        transform: preprocess.Preprocess,
        *,
        teacher: Teacher | None,
        held_out: image_split.ImageSplit,
        **options: Any,
    ) -> None:
        self._teacher = teacher
        self._predictions = SplitPredictions(split, transform, **options)
        self._held_out = SplitPredictions(held_out, transform, **options)
        # Splits can be sorted by class, and a block must not be of one class.
        self._order = np.random.default_rng(0).permutation(len(split))

    @functools.cached_property
    def _soft_labels(self) -> np.ndarray | None:
        if self._teacher is None:
            return None
        return self._predictions.of_teacher(self._teacher).logits

    def __call__(self, model: nn.Module, state: TrainState) -> dict[str, float]:
        """Numbers by name, see docs/theory.md; information in nats."""
        variables = state.evaluation_variables
        found = self._predictions.of_model(model, variables)
        held_out = self._held_out.of_model(model, variables)
        numbers = {**_calibration(found, held_out), **_lengths(found.logits)}
        num_classes = found.logits.shape[1]
        last_layer = lengths.last_layer_length(variables["params"], num_classes)
        if last_layer is not None:
            numbers["last_layer_length"] = float(last_layer)
        if self._soft_labels is None:
            return numbers
        shuffled = found.logits[self._order], self._soft_labels[self._order]
        return numbers | _information(*shuffled)


def _calibration(found: Predictions, held_out: Predictions) -> dict[str, float]:
    temperature = calibration.fit_temperature(*held_out)
    numbers = {"calibration_temperature": temperature}
    for prefix, logits in (("", found.logits), ("scaled_", found.logits / temperature)):
        nll = calibration.negative_log_likelihood(logits, found.labels)
        ece = calibration.expected_calibration_error(logits, found.labels)
        numbers |= {f"{prefix}nll": nll, f"{prefix}ece": ece}
    return numbers


def _lengths(logits: np.ndarray) -> dict[str, float]:
    return {
        f"{prefix}logit_length": float(
            jnp.mean(lengths.logit_lengths(jnp.asarray(logits), centred=centred))
        )
        for prefix, centred in (("", False), ("centred_", True))
    }


def _information(logits: np.ndarray, soft_labels: np.ndarray) -> dict[str, float]:
    students, targets = jnp.asarray(logits), jnp.asarray(soft_labels)
    block = min(BLOCK, len(logits))
    numbers = {"info_nce_ceiling": math.log(block)}
    for prefix, centred in (("", False), ("centred_", True)):
        cosines = information.cosines(students, targets, centred=centred)
        bound = information.info_nce_in_blocks(
            students, targets, block=block, temperature=TEMPERATURE, centred=centred
        )
        numbers |= {
            f"{prefix}cosine": float(jnp.mean(cosines)),
            f"{prefix}alignment": float(bound.alignment),
            f"{prefix}spread": float(bound.spread),
            f"{prefix}info_nce": float(bound.bound),
        }
    return numbers
