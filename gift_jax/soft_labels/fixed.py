"""Soft labels that are arrays in memory."""

import dataclasses
from collections.abc import Callable

import numpy as np

from gift_jax.runtime.errors import InputError
from gift_jax.soft_labels.views import View


@dataclasses.dataclass(frozen=True, eq=False)
class FixedSoftLabels:
    """Soft labels in memory.

    Attributes:
      logits: (views, N, C) float, or (N, C) that are the same for every view, as
        DATM publishes them.
      views: Number of views of every image to train on.

    >>> FixedSoftLabels(np.zeros((20, 10), np.float32), views=3)
    FixedSoftLabels(logits (20, 10), 3 views)
    """

    logits: np.ndarray
    views: int

    def __post_init__(self) -> None:
        """Raises InputError for missing logits, too few views, NaN and infinity."""
        if self.logits is None:
            raise InputError("soft labels are None, expected an array of logits")
        if self.views < 1:
            raise InputError(f"views is {self.views}, expected at least 1")
        # View by view, as a mask of all views would be half as large as the labels.
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
