"""Soft labels that are there as arrays."""

import dataclasses
from collections.abc import Callable

import numpy as np

from gift_jax.runtime.errors import InputError
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

    def __post_init__(self) -> None:
        """Raises InputError for what no labels are, and for NaN and infinity."""
        if self.logits is None:
            raise InputError("soft labels are None, expected an array of logits")
        if self.views < 1:
            raise InputError(f"views is {self.views}, expected at least 1")
        # View by view: whole, the mask would be half as large as the labels.
        if not all(np.isfinite(of_view).all() for of_view in self.logits):
            raise InputError("soft labels hold NaN or infinity, expected numbers")

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
