"""G-VBSM (CVPR 2024): its four branches, `train/train.sh` and what that calls.

https://github.com/shaoshitong/G_VBSM_Dataset_Condensation at commit 1ed80b0. Labels are
the mean logits of all its teachers: those of `teacher.also`.
"""

from typing import Any

from gift_jax.configs.protocols.base import LABELS_OF_VIEWS, Setting, views


def fields(setting: Setting) -> dict[str, Any]:
    """MSE and cross-entropy (`--loss-type mse_gt`) on CutMix, a whole cosine.

    Of CIFAR, that of CIFAR-100 for CIFAR-100 only.
    """
    recipe = {"cifar": _cifar10, "tiny": _tiny_imagenet, "imagenet": _imagenet1k}
    found = recipe[setting.family]
    if setting.dataset == "cifar100":
        found = _cifar100
    return {
        **LABELS_OF_VIEWS,
        # The hard label of the cross-entropy is that of the image cut into.
        **views(resized_crop=0.08, flip=True, mix="cutmix"),
        **found(setting),
    }


def _cifar10(setting: Setting) -> dict[str, Any]:
    return {
        "loss.name": "mse_ce-ce_weight=0.15",
        "optimizer.name": "adamw-weight_decay=0.0-schedule=cosine",
        "train.epochs": 1000,
        "train.batch_size": setting.at_most_all(100),
    }


def _cifar100(setting: Setting) -> dict[str, Any]:
    return {
        "loss.name": "mse_ce-ce_weight=0.15",
        "optimizer.name": "sgd-learning_rate=0.1-decay_vectors=False-schedule=cosine",
        "train.epochs": 1000,
        "train.batch_size": setting.at_most_all(64),
    }


def _tiny_imagenet(setting: Setting) -> dict[str, Any]:
    return {
        "loss.name": "mse_ce",
        "optimizer.name": "sgd-learning_rate=0.1-decay_vectors=False-schedule=cosine",
        "train.epochs": 100,
        "train.batch_size": setting.at_most_all(100),
    }


def _imagenet1k(setting: Setting) -> dict[str, Any]:
    return {
        "loss.name": "mse_ce",
        "optimizer.name": (
            "adamw-weight_decay=0.01-decay_vectors=False-schedule=cosine"
        ),
        "train.epochs": 300,
        "train.batch_size": setting.at_most_all(1024),
    }
