"""Real datasets: what is known of them, and where their images come from."""

from gift_jax.data.info import DATASETS, DatasetInfo, dataset_info
from gift_jax.data.preprocess import Normalization, Preprocess, Whitening

__all__ = [
    "DATASETS",
    "DatasetInfo",
    "Normalization",
    "Preprocess",
    "Whitening",
    "dataset_info",
]
