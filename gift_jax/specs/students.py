"""Which students a config asks for."""

import dataclasses
import itertools
from typing import Any

from gift_jax import losses, optimizers
from gift_jax.specs import settings


@dataclasses.dataclass(frozen=True)
class StudentSpec:
    """What tells one student of a job from another.

    Attributes:
      network: Model name.
      loss: Name of the loss.
      loss_options: Its hyperparameters, as sorted items.
      optimizer: With its schedule.
      seed: Of initialisation, order and dropout.
    """

    network: str
    loss: str
    loss_options: tuple[tuple[str, Any], ...]
    optimizer: optimizers.OptimizerSpec
    seed: int

    @property
    def loss_label(self) -> str:
        """The loss with those of its hyperparameters that are not the default.

        >>> StudentSpec("conv3", "kl", (("t_squared", True),), None, 0).loss_label
        'kl-t_squared=True'
        """
        defaults = losses.hyperparameters(self.loss)
        return settings.label(self.loss, dict(self.loss_options), defaults)

    @property
    def optimizer_label(self) -> str:
        """The optimizer with those of its options that are not the default.

        >>> sgd = optimizers.OptimizerSpec("sgd", momentum=0.0)
        >>> StudentSpec("conv3", "gift", (), sgd, 0).optimizer_label
        'sgd-momentum=0.0'
        """
        default = optimizers.OptimizerSpec(self.optimizer.name)
        fields = dataclasses.asdict(self.optimizer)
        del fields["name"], fields["learning_rate"]
        return settings.label(
            self.optimizer.name, fields, defaults=dataclasses.asdict(default)
        )

    def with_learning_rate(self, learning_rate: float) -> "StudentSpec":
        """The same student with another peak learning rate."""
        optimizer = dataclasses.replace(self.optimizer, learning_rate=learning_rate)
        return dataclasses.replace(self, optimizer=optimizer)

    def with_seed(self, seed: int) -> "StudentSpec":
        """The same student with another seed."""
        return dataclasses.replace(self, seed=seed)


def setups(config: settings.Config) -> list[list[StudentSpec]]:
    """All students of a config, those that differ in nothing but the seed together.

    They are every combination of the networks, losses and optimizers named in it,
    each with all seeds.
    """
    combinations = itertools.product(
        settings.names(config.student.name),
        [
            settings.loss_options(config.loss, n)
            for n in settings.names(config.loss.name)
        ],
        settings.names(config.optimizer.name),
    )
    return [
        [
            StudentSpec(
                network=network,
                loss=loss,
                loss_options=tuple(sorted(loss_options.items())),
                optimizer=settings.optimizer_spec(config.optimizer, optimizer),
                seed=seed,
            )
            for seed in config.train.seeds
        ]
        for network, (loss, loss_options), optimizer in combinations
    ]
