"""The teacher of a config."""

import dataclasses

from ml_collections.config_dict import ConfigDict

from gift_jax import models, registry
from gift_jax.augment import AugmentSpec
from gift_jax.data.preprocess import Normalization
from gift_jax.runtime.errors import InputError
from gift_jax.specs import base
from gift_jax.specs.network import NetworkSpec
from gift_jax.specs.optimizer import optimizer_spec
from gift_jax.train.teacher import TrainingSpec

# The value of `teacher.checkpoint` that stands for torchvision's weights.
TORCHVISION = "torchvision"


@dataclasses.dataclass(frozen=True)
class TeacherSpec:
    """Who labels.

    Attributes:
      name: Of a network, or "package.module:attribute" of anything that gives logits.
      network: None for what is no network of this project.
      checkpoint: PyTorch file to import, or `TORCHVISION`; "" trains a teacher.
      mean: What an imported teacher was trained with; () stands for the dataset's.
      std: Likewise.
      training: None for teachers that are not trained here.
      min_accuracy: Least accuracy on the distilled images in percent; None stands for
        a tenth of the way from chance to 100.
    """

    name: str
    network: NetworkSpec | None
    checkpoint: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    training: TrainingSpec | None
    min_accuracy: float | None

    def __post_init__(self) -> None:
        """Raises InputError for what no teacher can be."""
        base.normalization("teacher", self.mean, self.std)
        if self.network is None and self.checkpoint:
            raise InputError(
                f"teacher.checkpoint is {self.checkpoint}, but {self.name} is no "
                "network of this project: leave it out, and load weights there"
            )

    @classmethod
    def from_section(cls, section: ConfigDict, seed: int) -> "TeacherSpec":
        """The one teacher of a section.

        Args:
          section: `teacher` of a config.
          seed: Of its training.

        Raises:
          InputError: a field of it cannot be used.
        """
        name = section.name
        network = training = None
        if registry.split_options(name)[0] in models.MODELS:
            network = NetworkSpec.from_section(section, name)
            if not section.checkpoint:
                training = _training(section, seed)
        elif not registry.is_outside(name):
            raise registry.unknown_name(
                "teacher", name, models.MODELS, or_else=", or package.module:attribute"
            )
        return base.from_section(
            cls, section, name=name, network=network, training=training
        )

    @property
    def label(self) -> str:
        """Its name with those of its options that are not the default."""
        return self.network.label if self.network else self.name

    @property
    def preprocess(self) -> Normalization | None:
        """Channel statistics that are not the dataset's."""
        return base.normalization("teacher", self.mean, self.std)


def _training(section: ConfigDict, seed: int) -> TrainingSpec:
    base.check_least("teacher", section, epochs=1, batch_size=1)
    return TrainingSpec(
        optimizer=optimizer_spec(section.optimizer, section.optimizer.name),
        epochs=section.epochs,
        batch_size=section.batch_size,
        augmentation=AugmentSpec(**section.augment),
        seed=seed,
    )
