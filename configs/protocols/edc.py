"""EDC (NeurIPS 2024): ImageNet-1k, `train/train.sh` and `train_FKD_parallel.py`.

`Branch_full_ImageNet_1k` of https://github.com/shaoshitong/EDC at commit 99f521b. Its
branches for CIFAR and Tiny-ImageNet train with RandAugment, which is not here: smaller
images are given this recipe.
"""

from typing import Any

from gift_jax.configs.protocols.base import LABELS_OF_VIEWS, Setting, views


def fields(setting: Setting) -> dict[str, Any]:
    """MSE and 0.025 CE on CutMix, AdamW with decay 0.01, half a cosine (`--st 2`).

    A moving average of the weights is evaluated (`--ema-dr 0.99`).

    Half a cosine is what `--ls-type cos` asks for. What the code takes is a straight
    line to one half: an `if` that should be `elif` sends "cos" to the last branch, too.
    """
    return {
        **LABELS_OF_VIEWS,
        **views(shuffle=2, resized_crop=0.5, flip=True, mix="cutmix"),
        # The hard label of the cross-entropy is that of the image cut into.
        "loss.name": "mse_ce-ce_weight=0.025",
        "optimizer.name": (
            "adamw-weight_decay=0.01-decay_vectors=False-schedule=smoothed_cosine-"
            "ema=0.99"
        ),
        "train.epochs": 300,
        "train.batch_size": setting.at_most_all(100),
    }
