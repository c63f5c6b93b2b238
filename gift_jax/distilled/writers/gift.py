"""`data.pt`, which the GIFT evaluator reads: https://github.com/LINs-lab/GIFT."""

import pathlib

import numpy as np

from gift_jax.distilled.dataset import DistilledDataset
from gift_jax.distilled.writers import images as images_lib
from gift_jax.torch_io import torch_files


def write(dataset: DistilledDataset, path: pathlib.Path) -> None:
    """Writes a dict of the dataset's name, NCHW float32 images and the labels.

    The evaluator has one place for labels and labels images anew with its teacher:
    hard labels are written, soft labels are not. Whitened images are written as
    pixels. Both differ for DATM: its whitened images and logits, which the evaluator
    knows (its method "datm"), are written as they are.

    Args:
      dataset: What to write.
      path: The file.

    Raises:
      InputError: un-whitened pixels too far outside of [0, 1], or whitened images that
        readers would take for others, see `images.require_of_datm`.
    """
    is_datm = (
        dataset.metadata.method == "datm"
        and dataset.is_whitened
        and dataset.soft_labels is not None
    )
    if is_datm:
        images_lib.require_of_datm(dataset)
    images = dataset.images if is_datm else images_lib.readable_pixels(dataset)
    labels = dataset.soft_labels if is_datm else dataset.labels.astype(np.int64)
    content = {
        # The evaluator knows the datasets by names of its own.
        "dataset": _OFFICIAL_NAMES.get(
            dataset.metadata.dataset, dataset.metadata.dataset
        ),
        "data": np.ascontiguousarray(np.moveaxis(images, -1, 1), np.float32),
        "label": labels,
    }
    torch_files.save_torch(path, content)


_OFFICIAL_NAMES = {
    "tiny_imagenet": "tinyimagenet",
    "fashion_mnist": "fashionmnist",
    "imagenette": "imagenet-nette",
    "imagewoof": "imagenet-woof",
    "imagenet10": "imagenet-10",
    "imagenet100": "imagenet-100",
    "imagenet2012": "imagenet-1k",
    "imagenet2012_64": "imagenet-1k",
}
