"""What is measured of a student, by name."""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from gift_jax import registry
from gift_jax.data.image_split import ImageSplit
from gift_jax.data.preprocess import Preprocess
from gift_jax.evaluators.accuracy import Accuracy, AccuracyEvaluator
from gift_jax.evaluators.base import Evaluator, checked, on_first_outputs
from gift_jax.evaluators.tasks import TaskAccuracyEvaluator
from gift_jax.runtime.errors import InputError

__all__ = [
    "EVALUATORS",
    "Accuracy",
    "AccuracyEvaluator",
    "Evaluator",
    "make_evaluator",
    "on_first_outputs",
]

#: Every evaluator by name, called as `AccuracyEvaluator`.
EVALUATORS: Mapping[str, Callable[..., Evaluator]] = MappingProxyType(
    {"accuracy": AccuracyEvaluator, "task_accuracy": TaskAccuracyEvaluator}
)


def make_evaluator(
    name: str,
    split: ImageSplit,
    transform: Preprocess,
    *,
    context: Mapping[str, Any] = MappingProxyType({}),
    **options: Any,
) -> Evaluator:
    """The evaluator of that name for one split.

    Args:
      name: A key of `EVALUATORS`, or "package.module:attribute".
      split: Images and labels.
      transform: From pixels to network inputs.
      context: What else there is, by name: those get it who have an argument of that
        name.
      **options: devices, batch_size and workers, see `AccuracyEvaluator`.

    Raises:
      InputError: there is none of that name, or it is no evaluator.
    """
    factory = registry.find("evaluator", name, EVALUATORS)
    takes = inspect.signature(factory).parameters
    options |= {key: value for key, value in context.items() if key in takes}
    if not registry.is_outside(name):
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
