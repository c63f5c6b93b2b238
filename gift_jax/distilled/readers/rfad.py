"""`best.npz` of RFAD (https://github.com/yolky/RFAD): fixed labels, own whitening.

The labels are one-hot minus 1 / C. MNIST and Fashion-MNIST are standardised only.
"""

import pathlib

from gift_jax.distilled import zca
from gift_jax.distilled.dataset import DistilledDataset
from gift_jax.distilled.readers import arrays
from gift_jax.distilled.readers.request import Request
from gift_jax.distilled.value_space import STANDARDISED, WHITENED
from gift_jax.runtime.npz import read_npz

LOOKS_LIKE = ".npz with `images` (N, C, H, W), `labels` (N, classes) and `k` or `jit`"
_OWN_KEYS = {"k", "jit", "valid_loss"}


def matches(path: pathlib.Path) -> bool:
    """Whether the path is an npz with what only RFAD stores."""
    names = arrays.array_names(path)
    return {"images", "labels"} <= names and bool(names & _OWN_KEYS)


def read(request: Request) -> DistilledDataset:
    """Reads the arrays; see `read_distilled`. Labels stay as they are stored."""
    stored = read_npz(request.path, max_bytes=request.max_bytes)
    arrays.require(stored, "images", "labels")
    info = request.info()
    images, soft_labels = arrays.channels_last(stored["images"]), stored["labels"]
    return arrays.learnt_dataset(
        request,
        info,
        images,
        soft_labels,
        space=STANDARDISED if info.channels == 1 else WHITENED,
        fit=zca.fit_rfad,
        convention="RFAD",
        method="rfad",
    )
