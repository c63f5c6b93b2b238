"""What an evaluator is: named numbers of a student."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import flax.linen as nn

from gift_jax.data.image_split import ImageSplit
from gift_jax.data.preprocess import Preprocess
from gift_jax.runtime.errors import InputError
from gift_jax.train.step import TrainState


class Evaluator(Protocol):
    """Measures a student."""

    def __call__(self, model: nn.Module, state: TrainState) -> Mapping[str, float]:
        """Numbers by name, into metrics and rows of results.

        All hosts call it together and must get the same.

        Args:
          model: Applied as `model.apply(variables, inputs, train=False)`.
          state: Of the student; `state.evaluation_variables` are its weights.
        """


class EvaluatorFactory(Protocol):
    """Makes an evaluator for one split; what the door leads to."""

    def __call__(
        self,
        split: ImageSplit,
        transform: Preprocess,
        *,
        devices: Any,
        batch_size: int,
        workers: int | None,
    ) -> Evaluator:
        """An evaluator.

        Args:
          split: Images and labels.
          transform: From pixels to network inputs.
          devices: Devices of all hosts, see `hosts.devices`.
          batch_size: Images in a batch over all devices.
          workers: Processes to read images with; None chooses.
        """


@dataclasses.dataclass(frozen=True, eq=False)
class CheckedEvaluator:
    """An evaluator of the user's own, whose numbers are checked.

    Attributes:
      name: "package.module:attribute".
      evaluator: What measures.
    """

    name: str
    evaluator: Evaluator

    def __call__(self, model: nn.Module, state: TrainState) -> dict[str, float]:
        """Its numbers.

        Raises:
          InputError: it returns something else.
        """
        numbers = self.evaluator(model, state)
        try:
            return {str(name): float(value) for name, value in numbers.items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(
                f"the evaluator {self.name} returned {numbers!r}, expected numbers by "
                f"name, such as {{'margin': 0.5}} ({error})"
            ) from error
