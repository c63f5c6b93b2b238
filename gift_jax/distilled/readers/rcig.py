"""Flax checkpoints of RCIG (https://github.com/yolky/RCIG).

Images are preprocessed as FRePo's. RCIG's `eval.py` takes the moving average of the
learnt arrays.
"""

import pathlib

from gift_jax.distilled.dataset import DistilledDataset
from gift_jax.distilled.readers import frepo
from gift_jax.distilled.readers.request import Request
from gift_jax.runtime.errors import InputError

LOOKS_LIKE = (
    "a Flax checkpoint file with `ema_average.x_proto`, `ema_average.y_proto` "
    "and `params.log_temp`"
)


def matches(path: pathlib.Path) -> bool:
    """Whether the path is RCIG's checkpoint or a directory with one."""
    state = None if path.suffix == ".npz" else frepo.load_checkpoint(path)
    return state is not None and frepo.is_rcig(state)


def read(request: Request) -> DistilledDataset:
    """Reads the averaged arrays; see `read_distilled`."""
    average = frepo.require_checkpoint(request.path).get("ema_average")
    if not isinstance(average, dict) or not {"x_proto", "y_proto"} <= average.keys():
        raise InputError("the checkpoint has no `ema_average` of images and labels")
    return frepo.learnt_dataset(request, average["x_proto"], average["y_proto"], "rcig")
