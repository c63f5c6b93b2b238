"""MobileNetV2 and the inverted residual block."""

from functools import partial

import jax
import numpy as np

from gift_jax.models import layers
from gift_jax.models.mobilenet import InvertedResidual
from tests.models.test_resnet import sizes


def test_stochastic_depth_drops_the_branch_of_whole_examples():
    def block(train):
        return InvertedResidual(
            features=4,
            expansion=1,
            kernel_size=3,
            stride=1,
            activation=jax.nn.silu,
            squeeze=False,
            drop_rate=0.25,
            train=train,
            conv=layers.conv,
            norm=partial(layers.batch_norm, train=False),
        )

    x = np.random.default_rng(0).normal(size=(400, 3, 3, 4)).astype(np.float32)
    variables = jax.jit(block(train=False).init)(jax.random.key(1), x)
    branch = jax.jit(block(train=False).apply)(variables, x) - x
    trained = jax.jit(block(train=True).apply)(
        variables, x, rngs={"dropout": jax.random.key(2)}
    )
    kept = np.any(trained != x, axis=(1, 2, 3))
    scale = np.where(kept, 1 / 0.75, 0).reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(trained - x, branch * scale, atol=1e-5)
    # Binomial(400, 0.75) has a standard deviation of 8.7.
    assert abs(kept.sum() - 300) < 40


def test_the_modified_form_keeps_the_size_of_small_images():
    # chenyaofo/pytorch-cifar-models (mobilenetv2.py): reduced three times, not five.
    sides = [side for side, _ in sizes("mobilenet_v2_modified", 32, "block")]
    assert sides == 3 * [32] + 3 * [16] + 7 * [8] + 4 * [4]


def test_blocks_have_the_sizes_of_table_2():
    # Of the paper, arXiv 1801.04381, with images of 224 pixels.
    found = sizes("mobilenet_v2", 224, "block")
    channels = [16] + 2 * [24] + 3 * [32] + 4 * [64] + 3 * [96] + 3 * [160] + [320]
    sides = [112] + 2 * [56] + 3 * [28] + 7 * [14] + 4 * [7]
    assert found == list(zip(sides, channels, strict=True))
