"""VGG of torchvision: its stages, and small images."""

import pytest

from gift_jax.models import create_model
from gift_jax.runtime.errors import InputError
from tests.models.test_resnet import sizes


@pytest.mark.parametrize("image_size", [224, 32])
def test_a_max_pool_follows_each_stage(image_size):
    # Configuration A of arXiv 1409.1556.
    halved = [0, 1, 2, 2, 3, 3, 4, 4]
    channels = [64, 128, 256, 256, 512, 512, 512, 512]
    assert sizes("vgg11", image_size, "conv") == [
        (image_size >> i, c) for i, c in zip(halved, channels, strict=True)
    ]


def test_images_that_the_pools_leave_nothing_of_are_refused():
    with pytest.raises(InputError, match="needs image_size >= 32, got 31"):
        create_model("vgg11", num_classes=10, image_size=31)
