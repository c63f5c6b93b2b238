"""EfficientNet-B0 of torchvision: its stages and squeezes."""

import jax
import jax.numpy as jnp

from gift_jax.models import create_model
from tests.models.test_resnet import sizes


def test_stages_have_the_sizes_of_table_1():
    # Of arXiv 1905.11946.
    stages = [
        (1, 112, 16),
        (2, 56, 24),
        (2, 28, 40),
        (3, 14, 80),
        (3, 14, 112),
        (4, 7, 192),
        (1, 7, 320),
    ]
    expected = [(side, c) for blocks, side, c in stages for _ in range(blocks)]
    assert sizes("efficientnet_b0", 224, "stage") == expected


def test_a_block_squeezes_to_a_quarter_of_its_input():
    model = create_model("efficientnet_b0", num_classes=10, image_size=64)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    squeezed = {
        name: block["squeeze"]["kernel"].shape[-2:]
        for name, block in params.items()
        if name.startswith("stage")
    }
    assert squeezed["stage0_0"] == (32, 8)
    assert squeezed["stage1_0"] == (96, 4)
    assert squeezed["stage6_0"] == (1152, 48)
