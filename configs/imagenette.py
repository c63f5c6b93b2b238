"""Imagenette with ConvNet-5 at 128 pixels: IPC 10, RDED with factor 2, 1000 epochs.

python -m gift_jax.main --config=configs/imagenette.py --workdir=DIR
"""

import ml_collections

from gift_jax.configs import common
from gift_jax.specs.options import with_options


def get_config(options: str = "") -> ml_collections.ConfigDict:
    """The official evaluator on subsets of ImageNet."""
    config = common.get_config("imagenette")
    config.teacher.name = "conv5"
    config.teacher.augment.pad_crop = 0
    config.teacher.augment.resized_crop = 0.25
    config.distilled.rded.factor = 2  # RDED on the ImageNet family
    config.student.name = "conv5"
    return with_options(config, options)
