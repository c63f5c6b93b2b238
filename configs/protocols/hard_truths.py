"""Hard Truths about Soft Labels (CVPR 2026), arXiv 2604.18811: hard labels on CIFAR.

Table 4 has epochs, batch size, rate and the step of the small-scale track. Momentum and
weight decay, which it leaves out, are those of DC's evaluation, from which it comes.
"""

from typing import Any

from gift_jax.augment import DIFFAUG_STRATEGY
from gift_jax.configs.protocols.base import Setting, views
from gift_jax.runtime.errors import InputError


def fields(setting: Setting) -> dict[str, Any]:
    """No teacher: cross-entropy, SGD at 0.01, x0.1 after 152 of 300 epochs, DSA.

    Raises:
      InputError: it is for ImageNet, whose recipe is not known here.
    """
    if setting.family == "imagenet":
        raise InputError(
            f"protocol hard_truths is for CIFAR, Tiny-ImageNet and images of their "
            f"size, but the dataset is {setting.dataset} at {setting.side} pixels: "
            "protocol=rethinkdc,relabel.source=hard,loss=ce,augment.mix=none has hard "
            "labels for it"
        )
    return {
        "relabel.source": "hard",
        "relabel.views": 0,
        **views(diffaug=DIFFAUG_STRATEGY, diffaug_mode="single"),
        "loss.name": "ce",
        "optimizer.name": "sgd-weight_decay=0.0005-schedule=half_step",
        "train.epochs": 300,
        "train.batch_size": setting.at_most_all(256),
    }
