"""Class-incremental training: which classes have been seen, and what the teacher knows.

At every step classes are added, and a new student is trained on the distilled images of
all classes so far (GDumb, Prabhu et al., ECCV 2020), as in the evaluation of DM
(https://github.com/VICO-UoE/DatasetCondensation, CL_DM.py) and FRePo.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from ml_collections.config_dict import ConfigDict

from gift_jax import registry
from gift_jax.runtime.errors import InputError
from gift_jax.specs import base

# Labels of a teacher that is trained on all classes: for all classes, or only for those
# seen; or labels of a teacher that is trained anew for every step, on those seen.
FUTURE, MASKED, RETRAINED = TEACHERS = ("future", "masked", "retrained")


def class_order(seed: int, num_classes: int) -> tuple[int, ...]:
    """The order in which classes arrive, that of DM and FRePo for seeds 0 to 4.

    It is `np.random.seed(seed); np.random.permutation(num_classes)`.

    >>> class_order(0, 10)
    (2, 8, 4, 9, 1, 6, 7, 3, 0, 5)
    """
    order = np.random.RandomState(seed).permutation(num_classes)
    return tuple(int(label) for label in order)


@dataclasses.dataclass(frozen=True)
class ContinualSpec:
    """One step of one order of classes.

    Attributes:
      steps: Number of steps in all.
      step: Number of this step, from 1.
      order: Seed of the order of classes.
      teacher: One of `TEACHERS`.
    """

    steps: int
    step: int
    order: int
    teacher: str

    def __post_init__(self) -> None:
        """Raises InputError for an unknown teacher, or impossible steps."""
        if self.teacher not in TEACHERS:
            raise registry.unknown_name("continual.teachers", self.teacher, TEACHERS)
        if self.steps < 2 or not 1 <= self.step <= self.steps:
            raise InputError(
                f"continual.steps is {self.steps}, expected 2 or more, or 0 for none"
            )

    @classmethod
    def of_section(cls, section: ConfigDict) -> "Iterator[ContinualSpec | None]":
        """All steps of all orders with all teachers; a single None without steps.

        Raises:
          InputError: a field of the section cannot be used.
        """
        if not section.steps:
            yield None
            return
        base.check_seeds("continual.orders", tuple(section.orders))
        for teacher in base.chosen_names("continual.teachers", section.teachers):
            for order in section.orders:
                for step in range(1, max(section.steps, 1) + 1):
                    yield cls(section.steps, step, order, teacher)

    def classes_per_step(self, num_classes: int) -> int:
        """Number of classes that arrive at a step.

        Raises:
          InputError: the classes do not divide evenly over the steps.
        """
        if num_classes % self.steps:
            raise InputError(
                f"continual.steps is {self.steps}, by which {num_classes} classes "
                "cannot be divided"
            )
        return num_classes // self.steps

    def seen(self, num_classes: int) -> tuple[int, ...]:
        """The classes so far, in the order of their arrival."""
        count = self.step * self.classes_per_step(num_classes)
        return class_order(self.order, num_classes)[:count]

    def outputs(self, num_classes: int) -> tuple[int, ...]:
        """The classes that soft labels and students have, in the order of arrival."""
        if self.teacher == FUTURE:
            return class_order(self.order, num_classes)
        return self.seen(num_classes)

    @property
    def label(self) -> str:
        """Text for names of products."""
        return f"order{self.order}.step{self.step}of{self.steps}.{self.teacher}"

    @property
    def columns(self) -> dict[str, Any]:
        """Columns about it in rows of results."""
        fields = dataclasses.asdict(self)
        return {f"continual_{name}": value for name, value in fields.items()}
