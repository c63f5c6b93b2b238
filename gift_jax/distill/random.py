"""The baseline: real training images drawn at random."""

import dataclasses
from typing import ClassVar

import numpy as np

from gift_jax.data.real import RealDataset
from gift_jax.distill import base
from gift_jax.distilled import DistilledDataset
from gift_jax.teachers import Teacher


@dataclasses.dataclass(frozen=True)
class Random:
    """Draws `ipc` training images of each class, without replacement.

    With teacher labels this is a strong baseline ("A Label is Worth a Thousand
    Images", https://arxiv.org/abs/2406.10485). With one seed, the images for a
    smaller `ipc` are among those for a larger one.

    Attributes:
      ipc: Images per class, at least 1.

    Raises:
      InputError: an option is not positive.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"train_images"})

    ipc: int

    def __post_init__(self) -> None:
        """Checks the options."""
        base.check_options(self, positive=("ipc",))

    def check(self, data: RealDataset) -> None:
        """Raises InputError where a class has fewer than `ipc` images."""
        base.check_class_sizes(data, self.ipc)

    def make(
        self,
        data: RealDataset,
        *,
        teacher: Teacher | None = None,
        seed: int,
        on_progress: base.OnProgress | None = None,
    ) -> DistilledDataset:
        """Draws the images, see `base.Distiller`.

        Returns:
          num_classes * ipc images after the validation transform, class by class.

        Raises:
          InputError: a class has fewer than `ipc` images.
        """
        chosen = [
            np.random.default_rng([seed, label]).permutation(members)[: self.ipc]
            for label, members in enumerate(base.class_members(data, self.ipc))
        ]
        images = data.train.images(np.concatenate(chosen))
        return base.distilled_dataset(self, data, [images], seed=seed)
