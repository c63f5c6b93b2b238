"""GIFT (ICLR 2025): the official evaluator, which is this project's default.

`validate/evaluator_benchmark.py` of https://github.com/LINs-lab/GIFT.
"""

from typing import Any

from gift_jax.augment import DIFFAUG_STRATEGY
from gift_jax.configs.protocols.base import LABELS_OF_VIEWS, Setting, views


def fields(setting: Setting) -> dict[str, Any]:
    """AdamW at 1e-3, decay 1e-4 on all parameters, x0.2 at 2/3 and 5/6."""
    is_imagenet1k = setting.dataset in ("imagenet2012", "imagenet2012_64")
    # RandomFactorResizedCrop for RDED's mosaics, with ResNet-18 on ImageNet-1k only.
    factor = 2 if is_imagenet1k and setting.students == ("resnet18",) else 1
    return {
        **LABELS_OF_VIEWS,
        **views(diffaug=DIFFAUG_STRATEGY, factor=factor),
        "loss.name": "gift",
        "optimizer.name": "adamw",
        "train.epochs": 300 if is_imagenet1k else 1000,
        # The ladder of the evaluator: 10, 50, 100 or 200 by the number of images.
        "train.batch_size": 0,
    }
