"""The protocol of evaluators, which give named numbers of a student."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from gift_jax.runtime.errors import InputError
from gift_jax.train.step import TrainState


class Evaluator(Protocol):
    """Measures a student."""

    def __call__(self, model: nn.Module, state: TrainState) -> Mapping[str, float]:
        """Numbers by name, for metrics and rows of results.

        All hosts call it together and must get the same.

        Args:
          model: Applied as `model.apply(variables, inputs, train=False)`.
          state: State of the student; `state.evaluation_variables` are its weights.
        """


def checked(name: str, evaluator: Evaluator) -> Evaluator:
    """Makes a user's evaluator raise InputError for results that are no numbers.

    Args:
      name: Name of the evaluator, for errors.
      evaluator: The user's evaluator.
    """

    def measure(model: nn.Module, state: TrainState) -> dict[str, float]:
        numbers = evaluator(model, state)
        try:
            return {str(name): float(value) for name, value in numbers.items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(
                f"the evaluator {name} returned {numbers!r}, expected numbers by name, "
                f"such as {{'margin': 0.5}} ({error})"
            ) from error

    return measure


@dataclasses.dataclass(frozen=True)
class _FirstOutputs:
    """A network with its first outputs only.

    Attributes:
      model: The network.
      count: Number of outputs.
    """

    model: nn.Module
    count: int

    def apply(self, variables: Any, inputs: jax.Array, *, train: bool) -> jax.Array:
        """(B, count) logits."""
        logits = jnp.asarray(self.model.apply(variables, inputs, train=train))
        return logits[:, : self.count]


def on_first_outputs(evaluator: Evaluator, count: int) -> Evaluator:
    """An evaluator that sees only the first outputs of students.

    Args:
      evaluator: Evaluator on a split of `count` classes.
      count: Number of outputs.
    """

    def measure(model: nn.Module, state: TrainState) -> Mapping[str, float]:
        return evaluator(_FirstOutputs(model, count), state)  # type: ignore[arg-type]

    return measure
