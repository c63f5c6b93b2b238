"""An npz of images and labels, as `write_distilled` and KIP write it.

KIP's hold `images` NHWC, standardised or whitened, and `labels` (N, classes), one-hot
minus 1 / C or learnt: https://github.com/google-research/google-research/tree/master/kip
"""

import pathlib

from gift_jax.distilled import zca
from gift_jax.distilled.dataset import DistilledDataset
from gift_jax.distilled.readers import arrays, frepo, native, rfad
from gift_jax.distilled.readers.request import Request
from gift_jax.runtime.errors import InputError
from gift_jax.runtime.npz import read_npz

LOOKS_LIKE = (
    ".npz with `images`, `labels` (N,) integers, and if known `soft_labels` "
    "(N, classes) and `dataset` (name); or of KIP, with `labels` (N, classes)"
)


def matches(path: pathlib.Path) -> bool:
    """Whether the path is an npz file of no more specific format."""
    return arrays.kind_of(path) == "npz" and not any(
        reader.matches(path) for reader in (rfad, frepo, native)
    )


def read(request: Request) -> DistilledDataset:
    """Reads the arrays; see `read_distilled`."""
    stored = read_npz(request.path, max_bytes=request.max_bytes)
    arrays.require(stored, "images", "labels")
    name = stored.get("dataset")
    info = request.info(name.item() if name is not None and name.size == 1 else name)
    images, labels = arrays.channels_last(stored["images"]), stored["labels"]
    if "soft_labels" in stored:
        hard, _, _ = arrays.class_labels(labels)
        return arrays.pixel_dataset(request, info, images, hard, stored["soft_labels"])
    if stored["images"].shape[-1] != info.channels and labels.ndim == 2:
        raise InputError(
            f"`images` have shape {stored['images'].shape} and `labels` "
            f"{labels.shape}: KIP's have the channels last; if the file is RFAD's, say "
            "source='rfad'"
        )
    # KIP's nn_training.ipynb standardises by statistics measured on the train split.
    statistics = frepo.STATISTICS.get(info.name) if labels.ndim == 2 else None
    return arrays.learnt_dataset(
        *(request, info, images, labels),
        statistics=statistics,
        fit=zca.fit_kip,
        convention="KIP",
    )
