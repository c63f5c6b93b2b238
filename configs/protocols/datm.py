"""DATM (ICLR 2024): `distill/evaluation.py` and `utils/` of its repository.

https://github.com/NUS-HPC-AI-Lab/DATM. Its learning rate is learnt with the images
(`lr_best.pt`), and must be given as `optimizer.learning_rate`.
"""

from typing import Any

from gift_jax.augment import DIFFAUG_STRATEGY
from gift_jax.configs.protocols.base import Setting, views


def fields(setting: Setting) -> dict[str, Any]:
    """The soft labels distilled with the images, one of DSA's six operations, SGD."""
    return {
        "relabel.source": "dataset",
        "relabel.views": 0,
        **views(diffaug=DIFFAUG_STRATEGY, diffaug_mode="single"),
        "loss.name": "soft_ce",  # T = 1 on both sides
        # Momentum 0.9; x0.1 after half of the epochs.
        "optimizer.name": "sgd-weight_decay=0.0005-schedule=half_step",
        "student.norm": "instance",
        "train.epochs": 1000,
        "train.batch_size": setting.at_most_all(128),
    }
