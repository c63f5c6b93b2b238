"""Soft labels of every view: where they come from, how they are stored and replayed."""

from gift_jax.soft_labels.base import SoftLabels
from gift_jax.soft_labels.fixed import FixedSoftLabels
from gift_jax.soft_labels.views import AugmentedViews, TrainData

__all__ = [
    "AugmentedViews",
    "FixedSoftLabels",
    "SoftLabels",
    "TrainData",
]
