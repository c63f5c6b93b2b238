"""DD-Ranking (arXiv 2505.13300): the trainings of its label-robust score.

`configs/Demo_LRS_Hard_Label.yaml` (CIFAR) and `Demo_LRS_Soft_Label.yaml` (ImageNet-1k)
of https://github.com/NUS-HPC-AI-Lab/DD-Ranking, version 0.2.0. The scores need the same
with hard labels, too: docs/report.md.
"""

from typing import Any

from gift_jax.augment import DIFFAUG_STRATEGY
from gift_jax.configs.protocols.base import LABELS_OF_VIEWS, Setting, views


def fields(setting: Setting) -> dict[str, Any]:
    """Small images: one soft label per image, DSA; others: one per view, CutMix.

    The package tries the learning rates 0.001, 0.005, 0.01, 0.05 and 0.1 where none is
    learnt with the images, whatever the optimizer (`lr_list`), and keeps the best on
    the test split; with `tuning.enabled` they are compared on held-out images.
    """
    return (_imagenet1k if setting.family == "imagenet" else _cifar)(setting)


def _cifar(setting: Setting) -> dict[str, Any]:
    return {
        # soft_label_mode S, soft_label_criterion sce at T = 1 (README, eval/DATM).
        "relabel.source": "fixed",
        "relabel.views": 0,
        **views(diffaug=DIFFAUG_STRATEGY, diffaug_mode="single"),
        "loss.name": "soft_ce",
        # default_lr 0.01, momentum 0.9; StepLR(500, 0.1) of 1000 epochs.
        "optimizer.name": "sgd-weight_decay=0.0005-schedule=half_step",
        "tuning.factors": (0.1, 0.5, 1.0, 5.0, 10.0),  # of SGD's 0.01
        "train.epochs": 1000,
        "train.batch_size": setting.at_most_all(128),
    }


def _imagenet1k(setting: Setting) -> dict[str, Any]:
    return {
        **LABELS_OF_VIEWS,  # soft_label_mode M
        **views(resized_crop=0.08, flip=True, mix="cutmix"),
        "loss.name": "kl-temperature=1.0",
        # Its "cosine" is the first half of one (`get_lr_scheduler`).
        "optimizer.name": "adamw-weight_decay=0.01-schedule=smoothed_cosine",
        "tuning.factors": (1.0, 5.0, 10.0, 50.0, 100.0),  # of AdamW's 0.001
        "train.epochs": 300,
        "train.batch_size": setting.at_most_all(1024),
    }
