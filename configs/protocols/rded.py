"""RDED (CVPR 2024): `argument.py` and `validation/` of its repository.

https://github.com/LINs-lab/RDED at commit 31f9117.
"""

from typing import Any

from gift_jax.configs.protocols.base import LABELS_OF_VIEWS, Setting, views

# `adamw_lr` by `stud_name`, for the networks that exist here.
_RATES = {
    "vgg11": 5e-4,
    "efficientnet_b0": 2e-3,
    "mobilenet_v2": 2.5e-3,
}


def fields(setting: Setting) -> dict[str, Any]:
    """KL with T = 20 on CutMix, AdamW with decay 0.01, half a cosine."""
    rate = setting.of_students("learning rate", _RATES, 1e-3)
    batch_size = _batch_size(setting)
    # "special experiment"
    if (setting.dataset, setting.teacher, *setting.students) == (
        *("cifar100", "conv3", "conv3"),
    ):
        batch_size, rate = 25, 2e-3
    return {
        **LABELS_OF_VIEWS,
        **rded_views(setting),
        # Temperature 20 with `--mix-type cutmix`; its KL has no factor T^2.
        "loss.name": "kl",
        "optimizer.name": (
            f"adamw-learning_rate={rate}-weight_decay=0.01-decay_vectors=False"
            "-schedule=smoothed_cosine"
        ),
        "train.epochs": 300,
        "train.batch_size": batch_size,
    }


def rded_views(setting: Setting) -> dict[str, Any]:
    """ShufflePatches, RandomResizedCrop(1 / factor, 1), flip, CutMix with beta 1.

    The factor is that of the mosaics: 2 on the ImageNet family, 1 on CIFAR and
    Tiny-ImageNet (its scripts), where the first two leave images as they are.
    """
    on_mosaics: dict[str, Any] = {}
    if setting.family == "imagenet":
        on_mosaics = {"shuffle": 2, "resized_crop": 0.5}
    return views(flip=True, mix="cutmix", **on_mosaics)


def _batch_size(setting: Setting) -> int:
    """Batch size of `argument.py`, for IPC 1, 10 and 50; others have the one below."""
    if setting.dataset == "tiny_imagenet":
        return setting.at_most_all(100)
    size = 10 if setting.ipc < 10 else 50 if setting.ipc < 50 else 100
    return setting.at_most_all(2 * size if setting.num_classes in (100, 1000) else size)
