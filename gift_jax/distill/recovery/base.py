"""What the recovering distillers share."""

import abc
import dataclasses
import pathlib
from typing import ClassVar

import flax.linen as nn

from gift_jax.data.info import DatasetInfo
from gift_jax.data.preprocess import Normalization
from gift_jax.data.real import RealDataset
from gift_jax.distill import base
from gift_jax.distill.recovery import loop, statistics
from gift_jax.distill.unfinished import Unfinished
from gift_jax.distilled import DistilledDataset
from gift_jax.teachers import FlaxTeacher, Teacher, TeacherError


@dataclasses.dataclass(frozen=True)
class Recovery(abc.ABC):
    """Recovers images from a teacher with batch norm, see `loop`.

    Attributes:
      ipc: Images per class, at least 1.

    Raises:
      InputError: an option is negative, or none of its kind.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"teacher", "teacher_gradients"})
    resumable: ClassVar[bool] = True

    ipc: int

    def __post_init__(self) -> None:
        """Checks the options."""
        base.check_options(self, positive=("ipc", "batch_size"))

    @property
    def name(self) -> str:
        """Of the method, for messages."""
        return type(self).__name__.lower()

    def check_network(self, model: nn.Module, info: DatasetInfo) -> None:
        """Raises TeacherError for a network that nothing can be recovered from."""
        statistics.check_network(model, self.name, info)

    def make(
        self,
        data: RealDataset,
        *,
        teacher: Teacher | None,
        seed: int,
        on_progress: base.OnProgress | None = None,
        directory: pathlib.Path | None = None,
    ) -> DistilledDataset:
        """Recovers the images, see `base.Distiller`; progress is that of iterations.

        Returns:
          num_classes * ipc images, class by class.

        Raises:
          TeacherError: the teacher cannot be differentiated, or has no batch norm.
        """
        network, normalization = recoverable(teacher, self.name, data.info)
        images = loop.recover(
            self.method(network, normalization, data.info),
            data.info,
            ipc=self.ipc,
            seed=seed,
            on_progress=on_progress,
            unfinished=Unfinished(directory),
        )
        return base.distilled_dataset(self, data, [images], seed=seed)

    @abc.abstractmethod
    def method(
        self, teacher: FlaxTeacher, normalization: Normalization, info: DatasetInfo
    ) -> loop.Method:
        """How a batch is recovered from a teacher that is fed so."""


def recoverable(
    teacher: Teacher | None, method: str, info: DatasetInfo
) -> tuple[FlaxTeacher, Normalization]:
    """A teacher that images can be recovered from, and what it is fed.

    Raises:
      TeacherError: it cannot be differentiated here, has no batch norm, or is fed
        whitened images.
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
    statistics.check_network(teacher.model, method, info)
    return teacher, teacher.preprocess
