"""Fashion-MNIST with ConvNet-3, whose first layer pads 28 to 32 pixels.

python -m gift_jax.main --config=configs/fashion_mnist.py --workdir=DIR
"""

import ml_collections

from gift_jax.configs import common
from gift_jax.specs.options import with_options


def get_config(options: str = "") -> ml_collections.ConfigDict:
    """The official protocol; a teacher needs fewer epochs than on CIFAR."""
    config = common.get_config("fashion_mnist")
    config.teacher.epochs = 20
    config.teacher.augment.pad_crop = 2
    return with_options(config, options)
