"""SRe2L (NeurIPS 2023): ImageNet-1k and CIFAR-100; Tiny-ImageNet as in CDA.

https://github.com/VILA-Lab/SRe2L (`SRe2L/train`, `SRe2L/*_cifar100`), and
https://github.com/zeyuanyin/tiny-imagenet (`train_kd`) for Tiny-ImageNet.
"""

from typing import Any

from gift_jax.configs.protocols.base import LABELS_OF_VIEWS, Setting, views


def fields(setting: Setting) -> dict[str, Any]:
    """Another recipe for each of its three datasets; others by the size of images."""
    recipe = {"cifar": _cifar100, "tiny": _tiny_imagenet, "imagenet": _imagenet1k}
    return {**LABELS_OF_VIEWS, **recipe[setting.family](setting)}


def _imagenet1k(setting: Setting) -> dict[str, Any]:
    return {
        # RandomResizedCrop(0.08, 1), flip, CutMix with beta 1.
        **views(resized_crop=0.08, flip=True, mix="cutmix"),
        "loss.name": "kl",  # T = 20, no factor T^2
        "optimizer.name": (
            "adamw-weight_decay=0.01-decay_vectors=False-schedule=cosine"
        ),
        "train.epochs": 300,
        "train.batch_size": setting.at_most_all(1024),
    }


def _cifar100(setting: Setting) -> dict[str, Any]:
    return {
        **views(pad_crop=4, flip=True, mix="mixup", mix_alpha=0.8),
        "loss.name": "kl-temperature=30.0",
        "optimizer.name": "adamw-weight_decay=0.01-schedule=cosine",
        "train.epochs": 400,
        "train.batch_size": setting.at_most_all(128),
    }


def _tiny_imagenet(setting: Setting) -> dict[str, Any]:
    return {
        **views(resized_crop=0.08, flip=True),
        # As in the one of its scripts that multiplies by T^2.
        "loss.name": "kl-t_squared=True",
        "optimizer.name": (
            "sgd-learning_rate=0.2-weight_decay=0.0001-schedule=cosine-warmup_epochs=5"
        ),
        "train.epochs": 100,
        "train.batch_size": setting.at_most_all(256),
    }
