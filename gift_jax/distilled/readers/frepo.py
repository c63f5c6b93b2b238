"""Flax checkpoints and npz files of FRePo (https://github.com/yongchaoz/FRePo).

Images are NHWC and were standardised, then whitened; MNIST and Fashion-MNIST are only
standardised. Labels are learnt, and start from one-hot minus 1 / C.
"""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from gift_jax.data import info as info_lib
from gift_jax.data import preprocess
from gift_jax.distilled import zca
from gift_jax.distilled.dataset import DistilledDataset
from gift_jax.distilled.readers import arrays
from gift_jax.distilled.readers.request import Request
from gift_jax.distilled.value_space import STANDARDISED, WHITENED
from gift_jax.runtime.errors import InputError
from gift_jax.runtime.npz import read_npz

LOOKS_LIKE = (
    "a Flax checkpoint file with `params.x_proto` and `params.y_proto`, or .npz "
    "with `image` and `label`"
)

# `data_stats` in lib/dataset/dataloader.py; CIFAR's are those of the train split.
STATISTICS = {
    "cifar10": preprocess.Normalization(
        (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    ),
    "cifar100": preprocess.Normalization(
        (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)
    ),
    "tiny_imagenet": preprocess.Normalization(
        (0.4759, 0.4481, 0.3926), (0.2763, 0.2687, 0.2813)
    ),
    "imagenet2012_64": preprocess.Normalization(
        (0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758)
    ),
}


def matches(path: pathlib.Path) -> bool:
    """Whether the path is FRePo's npz, its checkpoint or a directory with one."""
    if arrays.kind_of(path) == "npz":
        return {"image", "label"} <= arrays.array_names(path)
    state = load_checkpoint(path)
    return state is not None and not is_rcig(state)


def read(request: Request) -> DistilledDataset:
    """Reads the learnt arrays; see `read_distilled`."""
    if arrays.kind_of(request.path) == "npz":
        stored = read_npz(request.path, max_bytes=request.max_bytes)
        arrays.require(stored, "image", "label")
        return learnt_dataset(request, stored["image"], stored["label"], "frepo")
    params = require_checkpoint(request.path)["params"]
    return learnt_dataset(request, params["x_proto"], params["y_proto"], "frepo")


def load_checkpoint(path: pathlib.Path) -> Mapping[str, Any] | None:
    """The state of a FRePo or RCIG checkpoint; None where the path is no such file.

    Args:
      path: A file that Flax wrote, or a directory with one named `checkpoint*`.
    """
    if path.is_dir():
        files = [file for file in path.glob("checkpoint*") if file.is_file()]
        if len(files) != 1:
            return None
        path = files[0]
    if not path.is_file() or not _starts_as_map(path):
        return None
    from flax import serialization

    try:
        state = serialization.msgpack_restore(path.read_bytes())
    except Exception:  # damaged bytes raise a dozen different types
        return None
    params = state.get("params") if isinstance(state, dict) else None
    is_learnt = isinstance(params, dict) and {"x_proto", "y_proto"} <= params.keys()
    return state if is_learnt else None


def _starts_as_map(path: pathlib.Path) -> bool:
    """Whether the first byte is that of a msgpack map."""
    with path.open("rb") as stream:
        first = stream.read(1)
    return bool(first) and (first[0] >> 4 == 0x8 or first[0] in (0xDE, 0xDF))


def require_checkpoint(path: pathlib.Path) -> Mapping[str, Any]:
    """Like `load_checkpoint`, but raises InputError where there is none."""
    state = load_checkpoint(path)
    if state is None:
        raise InputError(
            "no Flax checkpoint with `params.x_proto` and `params.y_proto` there; the "
            "file may be truncated, or the directory may hold several"
        )
    return state


def is_rcig(state: Mapping[str, Any]) -> bool:
    """Whether a checkpoint is RCIG's, which also learns a temperature."""
    return "log_temp" in state["params"]


def learnt_dataset(
    request: Request, images: np.ndarray, soft_labels: np.ndarray, method: str
) -> DistilledDataset:
    """A dataset in FRePo's preprocessing, which RCIG shares.

    Args:
      request: What was asked for.
      images: (N, H, W, C) float network inputs.
      soft_labels: (N, num_classes) float.
      method: "frepo" or "rcig".
    """
    info = request.info()
    images, soft_labels = np.asarray(images), np.asarray(soft_labels)
    if images.ndim != 4:
        raise InputError(f"`x_proto` has shape {images.shape}, expected (N, H, W, C)")
    is_grey = info.channels == 1
    statistics = info.normalization if is_grey else _require_statistics(info)
    return arrays.learnt_dataset(
        request,
        info,
        images,
        soft_labels,
        space=STANDARDISED if is_grey else WHITENED,
        fit=functools.partial(zca.fit_frepo, statistics=statistics),
        convention="FRePo",
        method=method,
    )


def _require_statistics(info: info_lib.DatasetInfo) -> preprocess.Normalization:
    if info.name not in STATISTICS:
        raise InputError(
            f"FRePo's data made from {info.name} cannot be read: known are "
            f"{', '.join(STATISTICS)}, MNIST and Fashion-MNIST. (At 128 pixels FRePo "
            "whitens blocks of 64, a matrix of 12,288 squared per block.)"
        )
    return STATISTICS[info.name]
