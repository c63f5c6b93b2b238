"""Rethinking Large-scale Dataset Compression, arXiv 2502.06434: its soft-label track.

`rethinkdc PATH --soft` of https://github.com/ArmandXiao/Rethinking-Dataset-Compression,
on ImageNet-1k. Its hard-label track, `--hard`, is the same without CutMix:
`protocol=rethinkdc,relabel.source=hard,loss=ce,augment.mix=none`.
"""

from typing import Any

from gift_jax.configs.protocols.base import LABELS_OF_VIEWS, Setting, views


def fields(setting: Setting) -> dict[str, Any]:
    """KL with T = 20 on CutMix, AdamW with decay 0.01, a whole cosine."""
    return {
        **LABELS_OF_VIEWS,
        **views(resized_crop=0.08, flip=True, mix="cutmix"),
        "loss.name": "kl",
        # Built on SRe2L's code, whose `get_parameters` it shares.
        "optimizer.name": (
            "adamw-weight_decay=0.01-decay_vectors=False-schedule=cosine"
        ),
        "train.epochs": 300,
        "train.batch_size": setting.at_most_all(128),
    }
