"""A teacher that gives the logits of some classes only."""

import dataclasses
import functools
from typing import Any, cast

import jax
import numpy as np

from gift_jax.data.preprocess import Preprocess
from gift_jax.teachers import base


@dataclasses.dataclass(frozen=True, eq=False)
class TeacherOfClasses:
    """A teacher with some of its outputs, in a given order.

    Attributes:
      teacher: The teacher.
      classes: Outputs that are kept, in the order of the new classes.
    """

    teacher: base.Teacher
    classes: tuple[int, ...]

    @property
    def name(self) -> str:
        """The teacher's name."""
        return self.teacher.name

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits for the teacher and the classes."""
        return base.fingerprint([self.teacher.fingerprint, np.array(self.classes)])

    def logits(self, images: base.Array) -> base.Array:
        """(B, len(classes)) float32 for (B, H, W, C) pixels, see `base.Teacher`."""
        return self.teacher.logits(images)[:, np.array(self.classes)]

    @property
    def variables(self) -> Any:
        """The teacher's variables; an AttributeError where JAX cannot trace it."""
        return self._traced.variables

    def apply(
        self, variables: Any, inputs: jax.Array, transform: Preprocess
    ) -> jax.Array:
        """(B, len(classes)) float32, see `base.TracedTeacher`."""
        logits = self._traced.apply(variables, inputs, transform)
        return logits[:, np.array(self.classes)]

    @property
    def _traced(self) -> base.TracedTeacher:
        return cast(base.TracedTeacher, self.teacher)
