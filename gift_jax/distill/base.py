"""What a distiller is: a way to make a distilled dataset from a real one."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from gift_jax.data.real import RealDataset
from gift_jax.distilled import DistilledDataset, Metadata
from gift_jax.runtime.errors import InputError
from gift_jax.teachers import Teacher

# Called with how much is done, and of how much. What it raises ends the work.
OnProgress = Callable[[int, int], None]


class Distiller(Protocol):
    """A frozen dataclass of its options, checked when it is made.

    Attributes:
      needs: Of "teacher" and "train_images".
      ipc: Images per class.
    """

    needs: ClassVar[frozenset[str]]

    @property
    def ipc(self) -> int:
        """Images per class."""

    def make(
        self,
        data: RealDataset,
        *,
        teacher: Teacher | None,
        seed: int,
        on_progress: OnProgress | None = None,
    ) -> DistilledDataset:
        """Makes the images.

        Args:
          data: The real dataset.
          teacher: None where it is not needed.
          seed: Of everything random.
          on_progress: Called now and then.

        Raises:
          InputError: they cannot be made from this dataset.
        """


def check_positive(distiller: Any) -> None:
    """Raises InputError for an option that is not a positive integer."""
    for name, value in dataclasses.asdict(distiller).items():
        if type(value) is not int or value < 1:
            raise InputError(
                f"{type(distiller).__name__}: {name} is {value!r}, expected a positive "
                "integer"
            )


def distilled_dataset(
    distiller: Any, data: RealDataset, images: Sequence[np.ndarray], *, seed: int
) -> DistilledDataset:
    """The dataset of images that were made class by class.

    Args:
      distiller: Who made them; its options are kept as the source.
      data: The real dataset.
      images: (ipc, S, S, C) uint8 for every class, or all in one.
      seed: What they were made with.
    """
    info, method = data.info, type(distiller).__name__.lower()
    options = {**dataclasses.asdict(distiller), "seed": seed}
    settings = ", ".join(f"{name} {value}" for name, value in options.items())
    return DistilledDataset(
        images=np.concatenate(images).astype(np.float32) / 255,
        labels=np.repeat(np.arange(info.num_classes), distiller.ipc),
        preprocess=info.normalization,
        metadata=Metadata(
            dataset=info.name,
            num_classes=info.num_classes,
            method=method,
            source=f"{method}: {settings}, split {info.train_split}",
        ),
    )
