"""Three files as DATM publishes them: https://github.com/NUS-HPC-AI-Lab/DATM."""

import pathlib

import numpy as np

from gift_jax.data import info
from gift_jax.distilled import standardised
from gift_jax.distilled.dataset import DistilledDataset
from gift_jax.distilled.writers import images
from gift_jax.runtime.errors import InputError
from gift_jax.torch_io import torch_files


def write(dataset: DistilledDataset, path: pathlib.Path) -> None:
    """Writes images_best.pt, labels_best.pt and, if one was learnt, lr_best.pt.

    Images are NCHW network inputs, whitened or standardised; labels are logits. DATM's
    readers look for "best" in the names. Pairs without a learning rate are read as DC's
    family's, and are therefore standardised with its statistics.

    Args:
      dataset: What to write.
      path: The directory.

    Raises:
      InputError: there are no soft labels, or images that readers would take for
        others, see `images.require_of_datm`.
    """
    if dataset.soft_labels is None:
        raise InputError("the format 'datm' holds soft labels, and there are none")
    if dataset.is_whitened:
        images.require_of_datm(dataset)
    path.mkdir()
    arrays = {
        "images": np.ascontiguousarray(np.moveaxis(_inputs(dataset), -1, 1)),
        "labels": dataset.soft_labels,
    }
    if dataset.metadata.learning_rate is not None:
        arrays["lr"] = np.array(dataset.metadata.learning_rate, np.float32)
    for name, array in arrays.items():
        torch_files.save_torch(path / f"{name}_best.pt", array)


def _inputs(dataset: DistilledDataset) -> np.ndarray:
    known = info.DATASETS.get(dataset.metadata.dataset)
    if dataset.is_whitened or known is None:
        return dataset.inputs()
    has_rate = dataset.metadata.learning_rate is not None
    convention = standardised.of_gift if has_rate else standardised.of_dc
    return convention(known).apply(dataset.images)
