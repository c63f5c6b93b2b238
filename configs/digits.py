"""The 8x8 digits of scikit-learn: no download, about a minute on two cores.

    python -m gift_jax.main --config=configs/digits.py --workdir=/tmp/digits

GIFT and KL, each on RDED images and on random real images.
"""

import ml_collections

from gift_jax.configs import common
from gift_jax.specs.options import with_options


def get_config(options: str = "") -> ml_collections.ConfigDict:
    """Small networks and few epochs, as the images are small."""
    config = common.get_config("digits")
    config.teacher.width = 32
    config.teacher.epochs = 30
    config.teacher.augment.pad_crop = 1
    config.teacher.augment.flip = False
    config.distilled.name = "random+rded"
    config.distilled.rded.images_per_class = 100
    # A mirrored digit is another sign.
    config.augment.diffaug = "color_crop_cutout_scale_rotate"
    config.student.width = 32
    config.loss.name = "kl+gift"
    config.train.epochs = 200
    config.tuning.validation_images = 300
    return with_options(config, options)
