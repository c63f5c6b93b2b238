"""CIFAR-100 with ConvNet-3, the official protocol: IPC 10, RDED, 1000 epochs.

python -m gift_jax.main --config=configs/cifar100.py --workdir=DIR
"""

import ml_collections

from gift_jax.configs import common
from gift_jax.specs.options import with_options


def get_config(options: str = "") -> ml_collections.ConfigDict:
    """All defaults are those of the official evaluator on CIFAR."""
    return with_options(common.get_config("cifar100"), options)
