"""Tiny-ImageNet with ConvNet-4 at 64 pixels: IPC 10, RDED, 1000 epochs.

    python -m gift_jax.main \\
        --config=configs/tiny_imagenet.py:data_dir=tiny-imagenet-200 --workdir=DIR

`data_dir` is the unpacked archive of http://cs231n.stanford.edu/tiny-imagenet-200.zip;
classes are numbered in the order of the sorted WordNet ids, as in RDED.
"""

import ml_collections

from gift_jax.configs import common
from gift_jax.specs.options import with_options


def get_config(options: str = "") -> ml_collections.ConfigDict:
    """The official evaluator on Tiny-ImageNet."""
    config = common.get_config("tiny_imagenet")
    config.teacher.name = "conv4"
    config.student.name = "conv4"
    return with_options(config, options)
