"""What is measured of a student, by name."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from gift_jax import registry
from gift_jax.data.image_split import ImageSplit
from gift_jax.data.preprocess import Preprocess
from gift_jax.evaluators.accuracy import Accuracy, AccuracyEvaluator
from gift_jax.evaluators.base import CheckedEvaluator, Evaluator, EvaluatorFactory
from gift_jax.runtime.errors import InputError

__all__ = [
    "EVALUATORS",
    "Accuracy",
    "AccuracyEvaluator",
    "Evaluator",
    "EvaluatorFactory",
    "make_evaluator",
]

#: Every evaluator by name: what the modules here call `EVALUATOR`.
EVALUATORS: Mapping[str, EvaluatorFactory] = registry.of_modules(__name__, "EVALUATOR")


def make_evaluator(
    name: str,
    split: ImageSplit,
    transform: Preprocess,
    *,
    devices: Sequence[jax.Device],
    batch_size: int = 512,
    workers: int | None = None,
) -> Evaluator:
    """The evaluator of that name for one split.

    Args:
      name: A key of `EVALUATORS`, or "package.module:attribute" of what is called as
        `EvaluatorFactory`.
      split: As of `EvaluatorFactory`, and so are the others.
      transform: Likewise.
      devices: Likewise.
      batch_size: Likewise.
      workers: Likewise.

    Raises:
      InputError: there is none of that name, or it is no evaluator.
    """
    factory = registry.find("evaluator", name, EVALUATORS)
    options: dict[str, Any] = {
        "devices": devices,
        "batch_size": batch_size,
        "workers": workers,
    }
    if not registry.is_outside(name):
        return factory(split, transform, **options)
    try:
        inspect.signature(factory).bind(split, transform, **options)
    except TypeError as error:
        raise InputError(
            f"the evaluator {name} cannot be made ({error}): it is called as "
            "factory(split, transform, devices=..., batch_size=..., workers=...)"
        ) from error
    evaluator = factory(split, transform, **options)
    if not callable(evaluator):
        raise InputError(
            f"the evaluator {name} made a {type(evaluator).__name__}, expected a "
            "function of (model, state) that returns numbers by name"
        )
    return CheckedEvaluator(name, evaluator)
