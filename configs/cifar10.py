"""CIFAR-10 with ConvNet-3, the official protocol: IPC 10, RDED, 1000 epochs.

    python -m gift_jax.main --config=configs/cifar10.py --workdir=DIR

The dataset must have been prepared once, see gift_jax/data/prepare.py.
"""

import ml_collections

from gift_jax.configs import common
from gift_jax.specs.options import with_options


def get_config(options: str = "") -> ml_collections.ConfigDict:
    """All defaults are those of the official evaluator on CIFAR."""
    return with_options(common.get_config("cifar10"), options)
