"""What the recovering distillers share."""

import abc
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import numpy as np

from gift_jax.data.info import DatasetInfo
from gift_jax.data.preprocess import Normalization
from gift_jax.data.real import RealDataset
from gift_jax.distill import base
from gift_jax.distill.recovery import loop, real_statistics, statistics
from gift_jax.distill.recovery.real_statistics import RealLayer
from gift_jax.distill.unfinished import Unfinished
from gift_jax.distilled import DistilledDataset
from gift_jax.teachers import FlaxTeacher, Teacher, TeacherError, ensemble


@dataclasses.dataclass(frozen=True)
class Recovery(abc.ABC):
    """Recovers images from a teacher with batch norm, see `loop`.

    Attributes:
      ipc: Images per class, at least 1.

    Raises:
      InputError: an option is negative, or of a wrong type.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"teacher", "teacher_gradients"})
    resumable: ClassVar[bool] = True
    on_all_hosts: ClassVar[bool] = True
    positive: ClassVar[tuple[str, ...]] = ("ipc", "batch_size")
    # The official constants, with the largest side of images that they are for.
    by_side: ClassVar[Sequence[tuple[int, Any]]]

    ipc: int

    def __post_init__(self) -> None:
        """Checks the options."""
        base.check_options(self, positive=self.positive)

    def constants(self, info: DatasetInfo) -> Any:
        """The official constants for this image size, overridden by the options."""
        sides = self.by_side
        official = next(found for side, found in sides if info.image_size <= side)
        return base.chosen(self, official)

    @property
    def name(self) -> str:
        """Name of the method, for messages."""
        return type(self).__name__.lower()

    def check_network(self, model: nn.Module, info: DatasetInfo) -> None:
        """Raises TeacherError for a network that nothing can be recovered from."""
        statistics.check_network(model, self.name, info)

    def check(self, data: RealDataset) -> None:
        """Raises InputError for a dataset that is not suitable; by default none is."""
        del data

    def make(
        self,
        data: RealDataset,
        *,
        teacher: Teacher | None,
        seed: int,
        on_progress: base.OnProgress | None = None,
        directory: pathlib.Path | None = None,
        real: Sequence[Sequence[RealLayer]] | None = None,
    ) -> DistilledDataset:
        """Recovers the images, see `base.Distiller`; progress counts iterations.

        Args:
          data: The real dataset.
          teacher: One network, or several.
          seed: Seed of noise and views.
          on_progress: Called with the iterations done.
          directory: Directory of an unfinished recovery, to resume it.
          real: `real_statistics.measure` of every network, for methods that need
            "teacher_statistics"; measured here by default.

        Returns:
          num_classes * ipc images, class by class.

        Raises:
          InputError: see `check`; or `real` has statistics of other layers.
          TeacherError: the teacher cannot be differentiated, or has no batch norm.
        """
        self.check(data)
        network, normalization = recoverable(teacher, self.name)
        self.check_network(network.model, data.info)
        networks = ensemble.members(network)
        if real is None and "teacher_statistics" in self.needs:
            real = [real_statistics.measure(member, data) for member in networks]
        elif real is not None:
            real_statistics.check(real, networks, data.info)
        unfinished = Unfinished(directory)
        unfinished.claim(lambda: base.recipe(self, data, seed, network))
        method = self.method(network, normalization, data.info, real or ())
        images = loop.recover(
            method._replace(initial=self.initial(data, network, seed, unfinished)),
            data.info,
            ipc=self.ipc,
            seed=seed,
            on_progress=on_progress,
            unfinished=unfinished,
        )
        return base.distilled_dataset(self, data, [images], seed=seed)

    def initial(
        self,
        data: RealDataset,
        teacher: FlaxTeacher,
        seed: int,
        unfinished: Unfinished,
    ) -> np.ndarray | None:
        """Pixels to start from, see `loop.Method`; by default noise."""
        del data, teacher, seed, unfinished
        return None

    @abc.abstractmethod
    def method(
        self,
        teacher: FlaxTeacher,
        normalization: Normalization,
        info: DatasetInfo,
        real: Sequence[Sequence[RealLayer]] = (),
    ) -> loop.Method:
        """How a batch is recovered from a teacher.

        Args:
          teacher: One network, or several.
          normalization: Turns pixels into the teacher's inputs.
          info: The real dataset.
          real: Statistics for every network, or their shapes, where they are needed.
        """


def recoverable(
    teacher: Teacher | None, method: str
) -> tuple[FlaxTeacher, Normalization]:
    """A teacher that images can be recovered from, and its normalisation.

    Raises:
      TeacherError: it cannot be differentiated here, or is fed whitened images.
    """
    if not isinstance(teacher, FlaxTeacher):
        name = "no teacher" if teacher is None else f"the teacher {teacher.name}"
        raise TeacherError(
            f"{method} needs gradients of a network of this project, and {name} is "
            "none: set teacher.name to one (and teacher.checkpoint for PyTorch "
            "weights), or take distilled.name=rded"
        )
    if not isinstance(teacher.preprocess, Normalization):
        raise TeacherError(
            f"{method}: the teacher {teacher.name} is fed whitened images"
        )
    return teacher, teacher.preprocess
