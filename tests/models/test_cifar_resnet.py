"""The ResNets for CIFAR: their blocks' sizes and the shortcut without parameters."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax.models import create_model, layers
from gift_jax.models.cifar_resnet import CifarBlock
from gift_jax.runtime.errors import InputError
from tests.models.test_resnet import sizes, without_branch


@pytest.mark.parametrize(("name", "blocks"), [("resnet20", 3), ("resnet56", 9)])
def test_three_stages_of_16_32_and_64_channels(name, blocks):
    expected = [stage for stage in ((32, 16), (16, 32), (8, 64)) for _ in range(blocks)]
    assert sizes(name, 32, "layer") == expected


def test_an_unknown_shortcut_is_refused():
    with pytest.raises(InputError, match=r"shortcut 'conv'.*one of pad, projection"):
        create_model("resnet20", num_classes=3, image_size=8, shortcut="conv")


@pytest.mark.parametrize(("features", "stride"), [(4, 1), (8, 2)])
def test_the_shortcut_skips_pixels_and_pads_channels_with_zeros(features, stride):
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype(np.float32)
    block = CifarBlock(
        features, stride, "pad", layers.conv, partial(layers.batch_norm, train=False)
    )
    variables = without_branch(jax.jit(block.init)(jax.random.key(0), x), "bn2")
    missing = (features - 4) // 2
    padded = np.pad(
        x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (missing, missing))
    )
    np.testing.assert_array_equal(
        jax.jit(block.apply)(variables, x), jnp.maximum(padded, 0)
    )
