"""The evaluators of students, by name."""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from gift_jax import registry
from gift_jax.data.image_split import ImageSplit
from gift_jax.data.preprocess import Preprocess
from gift_jax.evaluators.accuracy import Accuracy, AccuracyEvaluator
from gift_jax.evaluators.base import Evaluator, checked, on_first_outputs
from gift_jax.evaluators.diagnostics import DiagnosticsEvaluator
from gift_jax.evaluators.tasks import TaskAccuracyEvaluator
from gift_jax.runtime.errors import InputError

__all__ = [
    "EVALUATORS",
    "Accuracy",
    "AccuracyEvaluator",
    "Evaluator",
    "make_evaluator",
    "on_first_outputs",
    "wanted",
]

#: Every evaluator by name, called as `AccuracyEvaluator`.
EVALUATORS: Mapping[str, Callable[..., Evaluator]] = MappingProxyType(
    {
        "accuracy": AccuracyEvaluator,
        "task_accuracy": TaskAccuracyEvaluator,
        "diagnostics": DiagnosticsEvaluator,
    }
)


def wanted(name: str, context: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a context that an evaluator has an argument for.

    Args:
      name: See `make_evaluator`.
      context: Arguments by name: `teacher` and `held_out`, see `DiagnosticsEvaluator`,
        and `classes_per_step`, see `TaskAccuracyEvaluator`.
    """
    factory = registry.find("evaluator", name, EVALUATORS)
    takes = inspect.signature(factory).parameters
    return {key: value for key, value in context.items() if key in takes}


def make_evaluator(
    name: str, split: ImageSplit, transform: Preprocess, **options: Any
) -> Evaluator:
    """The evaluator of that name for one split.

    Args:
      name: A key of `EVALUATORS`, or "package.module:attribute".
      split: Images and labels.
      transform: Preprocessing of pixels to network inputs.
      **options: The result of `wanted`, and devices, batch_size and workers, see
        `AccuracyEvaluator`.

    Raises:
      InputError: there is none of that name, or it is no evaluator.
    """
    factory = registry.find("evaluator", name, EVALUATORS)
    if not registry.is_own(name):
        return factory(split, transform, **options)
    call = f"factory(split, transform, {', '.join(f'{o}=...' for o in options)})"
    registry.check_call(
        f"the evaluator {name}", factory, call, split, transform, **options
    )
    evaluator = factory(split, transform, **options)
    if not callable(evaluator):
        raise InputError(
            f"the evaluator {name} made a {type(evaluator).__name__}, expected a "
            "function of (model, state) that returns numbers by name"
        )
    return checked(name, evaluator)
