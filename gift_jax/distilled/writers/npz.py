"""A plain npz of pixels and labels."""

import pathlib
from typing import Any

import numpy as np

from gift_jax.distilled.dataset import DistilledDataset, as_uint8
from gift_jax.distilled.writers import images
from gift_jax.runtime.npz import write_npz


def write(dataset: DistilledDataset, path: pathlib.Path) -> None:
    """Writes `images` NHWC, `labels`, `soft_labels` if there are any, and `dataset`.

    Pixels that came from 8 bits are uint8, others float32; whitened images are
    written as pixels.

    Args:
      dataset: What to write.
      path: The file.

    Raises:
      InputError: un-whitened pixels too far outside of [0, 1].
    """
    pixels = images.readable_pixels(dataset)
    exact = as_uint8(pixels)
    arrays: dict[str, Any] = {
        "images": pixels if exact is None else exact,
        "labels": dataset.labels,
        "dataset": np.array(dataset.metadata.dataset),
    }
    if dataset.soft_labels is not None:
        arrays["soft_labels"] = dataset.soft_labels
    write_npz(path, arrays)
