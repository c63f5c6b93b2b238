"""Distilled datasets: what one holds, and how others' formats are read and written."""

from gift_jax.distilled.dataset import DistilledDataset, Metadata
from gift_jax.distilled.files import load_distilled, save_distilled
from gift_jax.distilled.readers import READERS, read_distilled
from gift_jax.distilled.writers import WRITERS, write_distilled

__all__ = [
    "READERS",
    "WRITERS",
    "DistilledDataset",
    "Metadata",
    "load_distilled",
    "read_distilled",
    "save_distilled",
    "write_distilled",
]
