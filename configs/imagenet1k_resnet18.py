"""ImageNet-1k with ResNet-18 at 224 pixels: IPC 10, RDED with factor 2, 300 epochs.

    python -m gift_jax.main --config=configs/imagenet1k_resnet18.py --workdir=DIR

The teacher is torchvision's ResNet-18 (IMAGENET1K_V1, as in the official code).
"""

import ml_collections

from gift_jax.configs import common
from gift_jax.specs.options import with_options


def get_config(options: str = "") -> ml_collections.ConfigDict:
    """The official evaluator on ImageNet-1k with ResNets."""
    config = common.get_config("imagenet2012")
    config.teacher.name = "resnet18"
    config.teacher.checkpoint = "torchvision"
    config.distilled.rded.factor = 2  # RDED on the ImageNet family
    # RDED's mosaics are cut open again with RandomFactorResizedCrop (official); other
    # images are not: augment.factor=1.
    config.augment.factor = 2
    config.student.name = "resnet18"
    config.train.epochs = 300
    return with_options(config, options)
