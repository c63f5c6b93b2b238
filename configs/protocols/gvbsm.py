"""G-VBSM (CVPR 2024): its four branches, `train/train.sh` and what that calls.

https://github.com/shaoshitong/G_VBSM_Dataset_Condensation at commit 1ed80b0. Labels are
the mean logits of all its teachers: those of `teacher.also`.
"""

from typing import Any, NamedTuple

from gift_jax.configs.protocols.base import LABELS_OF_VIEWS, Setting, views

_SGD = "sgd-learning_rate=0.1-decay_vectors=False-schedule=cosine"
_ADAMW = "adamw-weight_decay={}-decay_vectors=False-schedule=cosine"


class _Recipe(NamedTuple):
    epochs: int
    batch_size: int
    optimizer: str
    loss: str


_CIFAR100 = _Recipe(1000, 64, _SGD, "mse_ce-ce_weight=0.15")
_BY_FAMILY = {
    "cifar": _Recipe(1000, 100, _ADAMW.format("0.0"), "mse_ce-ce_weight=0.15"),
    "tiny": _Recipe(100, 100, _SGD, "mse_ce"),
    "imagenet": _Recipe(300, 1024, _ADAMW.format("0.01"), "mse_ce"),
}


def fields(setting: Setting) -> dict[str, Any]:
    """MSE and cross-entropy (`--loss-type mse_gt`) on CutMix, a whole cosine.

    CIFAR-10's branch is for all small images but CIFAR-100's.
    """
    is_cifar100 = setting.dataset == "cifar100"
    recipe = _CIFAR100 if is_cifar100 else _BY_FAMILY[setting.family]
    return {
        **LABELS_OF_VIEWS,
        # The hard label of the cross-entropy is that of the image cut into.
        **views(resized_crop=0.08, flip=True, mix="cutmix"),
        "loss.name": recipe.loss,
        "optimizer.name": recipe.optimizer,
        "train.epochs": recipe.epochs,
        "train.batch_size": setting.at_most_all(recipe.batch_size),
    }
