"""Soft labels that are there as arrays."""

import dataclasses

import numpy as np

from gift_jax.soft_labels.base import Ready
from gift_jax.soft_labels.views import View


@dataclasses.dataclass(frozen=True, eq=False)
class FixedSoftLabels:
    """Labels that are the same for every view, as DATM publishes them.

    Attributes:
      logits: (N, C) float.
      views: How many views of every image to train on.
    """

    logits: np.ndarray
    views: int

    def start_reading(self, view: int) -> Ready:
        """The view of that number, with the logits that all views have."""
        return Ready(View(np.int32(view), self.logits))


@dataclasses.dataclass(frozen=True, eq=False)
class InMemorySoftLabels:
    """Labels of every view, in memory.

    Attributes:
      logits: (views, N, C) float.
    """

    logits: np.ndarray

    @property
    def views(self) -> int:
        """How many views of every image there are labels of."""
        return len(self.logits)

    def start_reading(self, view: int) -> Ready:
        """The view of that number, with its logits."""
        return Ready(View(np.int32(view), self.logits[view]))
