"""The ResNets of torchvision: their blocks' sizes and shortcuts."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax.models import create_model, layers
from gift_jax.models.resnet import BasicBlock, BottleneckBlock


def sizes(name, image_size, prefix, **options):
    """(side, channels) of the results of blocks, in order."""
    model = create_model(name, num_classes=10, image_size=image_size, **options)

    def call(key):
        images = jnp.zeros((1, image_size, image_size, 3))
        return model.init_with_output(key, images, capture_intermediates=True)[1]

    kept = jax.eval_shape(call, jax.random.key(0))["intermediates"]
    blocks = [block for block in kept if block.startswith(prefix)]
    blocks.sort(key=lambda block: [int(number) for number in re.findall(r"\d+", block)])
    found = [kept[block]["__call__"][0].shape for block in blocks]
    return [(height, channels) for _, height, _, channels in found]


# Of blocks for images of 224 pixels: table 1 of arXiv 1512.03385.
@pytest.mark.parametrize(
    ("name", "image_size", "blocks", "sides", "widths"),
    [
        ("resnet18", 224, (2, 2, 2, 2), (56, 28, 14, 7), (64, 128, 256, 512)),
        ("resnet34", 224, (3, 4, 6, 3), (56, 28, 14, 7), (64, 128, 256, 512)),
        ("resnet50", 224, (3, 4, 6, 3), (56, 28, 14, 7), (256, 512, 1024, 2048)),
        ("resnet101", 224, (3, 4, 23, 3), (56, 28, 14, 7), (256, 512, 1024, 2048)),
        ("resnet18_modified", 64, (2, 2, 2, 2), (64, 32, 16, 8), (64, 128, 256, 512)),
        ("resnet50_modified", 32, (3, 4, 6, 3), (32, 16, 8, 4), (256, 512, 1024, 2048)),
    ],
)
def test_stages_halve_the_image(name, image_size, blocks, sides, widths):
    expected = [
        (side, width)
        for count, side, width in zip(blocks, sides, widths, strict=True)
        for _ in range(count)
    ]
    assert sizes(name, image_size, "layer") == expected


def without_branch(variables, norm):
    """The variables with a norm whose result is zero."""
    params = variables["params"]
    zeroed = params | {norm: jax.tree.map(jnp.zeros_like, params[norm])}
    return variables | {"params": zeroed}


@pytest.mark.parametrize(
    ("block", "last_norm", "width"),
    [(BasicBlock, "bn2", 4), (BottleneckBlock, "bn3", 1)],
)
def test_the_shortcut_is_the_identity_or_a_projection(block, last_norm, width):
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype(np.float32)
    make = partial(
        block, width, conv=layers.conv, norm=partial(layers.batch_norm, train=False)
    )
    same = make(stride=1)
    variables = without_branch(jax.jit(same.init)(jax.random.key(0), x), last_norm)
    assert "downsample_conv" not in variables["params"]
    np.testing.assert_array_equal(jax.jit(same.apply)(variables, x), np.maximum(x, 0))

    halved = make(stride=2)
    variables = without_branch(jax.jit(halved.init)(jax.random.key(0), x), last_norm)
    kernel = np.asarray(variables["params"]["downsample_conv"]["kernel"])[0, 0]
    # A fresh batch norm that evaluates divides by the root of 1 + 1e-5.
    expected = np.maximum(x[:, ::2, ::2] @ kernel / np.sqrt(1 + 1e-5), 0)
    found = jax.jit(halved.apply)(variables, x)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_stride_of_a_bottleneck_is_on_its_second_convolution():
    # torchvision's version 1.5.
    block = BottleneckBlock(
        2, 2, conv=layers.conv, norm=partial(layers.batch_norm, train=False)
    )
    _, kept = jax.eval_shape(
        partial(block.init_with_output, capture_intermediates=True),
        jax.random.key(0),
        jnp.zeros((1, 8, 8, 4)),
    )
    found = kept["intermediates"]
    sides = [found[f"conv{i}"]["__call__"][0].shape[1] for i in (1, 2, 3)]
    assert sides == [8, 4, 4]
