"""Soft labels that are there as arrays."""

import dataclasses
from collections.abc import Callable

import numpy as np

from gift_jax.soft_labels.views import View


@dataclasses.dataclass(frozen=True, eq=False)
class FixedSoftLabels:
    """Labels in memory.

    Attributes:
      logits: (views, N, C) float, or (N, C) that are the same for every view, as
        DATM publishes them.
      views: How many views of every image to train on.

    >>> FixedSoftLabels(np.zeros((20, 10), np.float32), views=3)
    FixedSoftLabels(logits (20, 10), 3 views)
    """

    logits: np.ndarray
    views: int

    def __repr__(self) -> str:
        return f"FixedSoftLabels(logits {self.logits.shape}, {self.views} views)"

    @property
    def num_images(self) -> int:
        """N."""
        return self.logits.shape[-2]

    def start_reading(self, view: int) -> Callable[[], View]:
        """The view of that number, with its logits."""
        of_view = self.logits if self.logits.ndim == 2 else self.logits[view]
        return lambda: View(np.int32(view), of_view)
