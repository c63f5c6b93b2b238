"""ImageNet-1k with ConvNet-4 at 64 pixels: IPC 10, RDED with factor 2, 300 epochs.

    python -m gift_jax.main --config=configs/imagenet1k.py --workdir=DIR \\
        --config.teacher.checkpoint=imagenet-1k_conv4.pth

The teacher is the published observer of RDED's README. Without a checkpoint one is
trained, for 60 epochs on the whole train split, which is read meanwhile.
"""

import ml_collections

from gift_jax.configs import common
from gift_jax.specs.options import with_options


def get_config(options: str = "") -> ml_collections.ConfigDict:
    """The official evaluator on ImageNet-1k with ConvNets."""
    config = common.get_config("imagenet2012")
    # 64 pixels from images whose shorter side is resized to 73 (official).
    config.dataset.image_size = 64
    config.teacher.name = "conv4"
    config.distilled.rded.factor = 2  # RDED on the ImageNet family
    config.student.name = "conv4"
    config.train.epochs = 300
    return with_options(config, options)
