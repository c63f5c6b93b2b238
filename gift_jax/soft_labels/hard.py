"""Trainings without soft labels, throughout or in the middle."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from gift_jax.soft_labels.base import SoftLabels
from gift_jax.soft_labels.views import View


@dataclasses.dataclass(frozen=True)
class HardLabels:
    """Views without soft labels, for losses that take None for logits, such as "ce".

    Attributes:
      views: Number of views of every image to train on.
    """

    views: int

    def start_reading(self, view: int) -> Callable[[], View]:
        """The view of that number, without logits."""
        return lambda: View(np.int32(view), None)


@dataclasses.dataclass(frozen=True, eq=False)
class SoftHardSoft:
    """Soft labels, hard ones in the middle epochs, and soft ones again.

    The schedule of HALD (arXiv 2512.15647), setting "S6" of `validate/train_fkd.py` in
    https://github.com/Jiacheng8/HALD. Views are requested by the number of their epoch.

    Attributes:
      soft: Soft labels of the other epochs, half of which come first and half last.
      epochs: Epochs of the whole training.
      hard_epochs: Epochs in the middle, with views that no soft epoch has.
    """

    soft: SoftLabels
    epochs: int
    hard_epochs: int

    @property
    def views(self) -> int:
        """One view per epoch."""
        return self.epochs

    def start_reading(self, view: int) -> Callable[[], Any]:
        """The view of an epoch, with soft labels or without."""
        first = (self.epochs - self.hard_epochs) // 2
        if view < first:
            return self.soft.start_reading(view % self.soft.views)
        if view < first + self.hard_epochs:
            number = np.int32(self.soft.views + view - first)
            return lambda: View(number, None)
        return self.soft.start_reading((view - self.hard_epochs) % self.soft.views)
