"""Students: a network, a loss, an optimizer and a seed."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections.config_dict import ConfigDict

from gift_jax import losses, optimizers, registry
from gift_jax.runtime.errors import InputError
from gift_jax.specs import base
from gift_jax.specs.network import NetworkSpec
from gift_jax.specs.optimizer import check_used, optimizer_spec


@dataclasses.dataclass(frozen=True)
class LossSpec:
    """A loss with its hyperparameters.

    Attributes:
      name: Name in `losses.LOSS_NAMES`, or "package.module:attribute".
      options: All its hyperparameters.
      code: Fingerprint of the code of a user's loss.
    """

    name: str
    options: base.Options
    code: str | None = None

    def __post_init__(self) -> None:
        """Raises InputError for a hyperparameter that it cannot have."""
        self.build()

    @classmethod
    def from_section(cls, section: ConfigDict, text: str) -> "LossSpec":
        """The loss of that name, with hyperparameters from the name or the section.

        Raises:
          InputError: an unknown loss or hyperparameter.
        """
        name, given = registry.split_options(text)
        defaults = _hyperparameters(name)
        values = section.get(name) if name in losses.LOSSES else None
        return cls(
            name=name,
            options=base.chosen_options(f"loss {name}", given, defaults, values),
            code=registry.code_fingerprint(name),
        )

    @property
    def label(self) -> str:
        """Its name with the hyperparameters that are not the default."""
        return registry.label(
            self.name, dict(self.options), _hyperparameters(self.name)
        )

    @property
    def needs_soft_labels(self) -> bool:
        """Whether it cannot be computed without soft labels."""
        logits = jax.ShapeDtypeStruct((3, 4), jnp.float32)
        labels = jax.ShapeDtypeStruct((3,), jnp.int32)
        try:
            jax.eval_shape(lambda s, y: self.build()(s, None, y), logits, labels)
        except Exception:  # a user's loss may raise any
            return True
        return False

    def build(self) -> losses.Loss:
        """The loss; one object for equal specs, which then share compiled functions."""
        try:
            return losses.get_loss(_function(self.name), **dict(self.options))
        except ValueError as error:
            raise InputError(f"loss.name is {self.name!r}: {error}") from error


def _function(name: str) -> Callable:
    return registry.find("loss", name, losses.LOSSES)


def _hyperparameters(name: str) -> dict[str, Any]:
    function = _function(name)
    try:
        return losses.hyperparameters(function)
    except ValueError as error:
        raise InputError(f"loss.name is {name!r}: {error}") from error


@dataclasses.dataclass(frozen=True)
class StudentSpec:
    """What tells one student of a job from another.

    Attributes:
      network: The network.
      loss: The loss.
      optimizer: Optimizer and its schedule.
      seed: Seed of initialisation, order and dropout.
    """

    network: NetworkSpec
    loss: LossSpec
    optimizer: optimizers.OptimizerSpec
    seed: int

    def with_learning_rate(self, learning_rate: float) -> "StudentSpec":
        """The same student with another peak learning rate."""
        optimizer = dataclasses.replace(self.optimizer, learning_rate=learning_rate)
        return dataclasses.replace(self, optimizer=optimizer)

    def with_seed(self, seed: int) -> "StudentSpec":
        """The same student with another seed."""
        return dataclasses.replace(self, seed=seed)


def setups(config: ConfigDict) -> Iterator[tuple[StudentSpec, ...]]:
    """All students of a config, grouped so that only the seed differs within a group.

    They are every combination of the networks, losses and optimizers named in it,
    each with all seeds.

    Raises:
      InputError: a student cannot be trained.
    """
    base.check_seeds("train.seeds", tuple(config.train.seeds))
    networks = [
        NetworkSpec.from_section(config.student, name)
        for name in base.chosen_names("student.name", config.student.name)
    ]
    chosen = [
        LossSpec.from_section(config.loss, name)
        for name in base.chosen_names("loss.name", config.loss.name)
    ]
    optimizer_specs = [
        optimizer_spec(config.optimizer, name)
        for name in base.chosen_names("optimizer.name", config.optimizer.name)
    ]
    check_used(config.optimizer, optimizer_specs)
    for network, loss, optimizer in itertools.product(
        networks, chosen, optimizer_specs
    ):
        yield tuple(
            StudentSpec(network, loss, optimizer, seed) for seed in config.train.seeds
        )
