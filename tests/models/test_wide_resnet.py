"""Wide ResNets: the sizes of their blocks and their shortcuts."""

from functools import partial

import jax
import numpy as np
import pytest

from gift_jax.models import create_model, init_variables, layers
from gift_jax.models.wide_resnet import WideBlock
from tests.models.test_resnet import sizes


def test_stages_have_the_sizes_of_table_1():
    # Of arXiv 1605.07146, for WRN-16-4: two blocks a stage.
    expected = [(32, 64)] * 2 + [(16, 128)] * 2 + [(8, 256)] * 2
    assert sizes("wrn", 32, "block", depth=16, widen=4) == expected


# Parameters in table 4 of the paper, which counts for CIFAR-10.
@pytest.mark.parametrize(
    ("depth", "widen", "millions"),
    [(40, 1, 0.6), (40, 2, 2.2), (40, 4, 8.9), (16, 8, 11.0), (28, 10, 36.5)],
)
def test_parameters_are_those_of_table_4(depth, widen, millions):
    model = create_model("wrn", num_classes=10, image_size=32, depth=depth, widen=widen)
    shapes = jax.eval_shape(
        lambda key: init_variables(model, key, image_size=32), jax.random.key(0)
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert round(count / 1e6, 1) == millions


@pytest.mark.parametrize(("features", "has"), [(4, False), (8, True)])
def test_the_shortcut_is_the_input_where_the_channels_stay(features, has):
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype(np.float32)
    block = WideBlock(features, 1, layers.conv, partial(layers.batch_norm, train=False))
    variables = jax.jit(block.init)(jax.random.key(0), x)
    assert ("shortcut" in variables["params"]) == has
    variables["params"]["conv2"]["kernel"] *= 0
    if not has:
        np.testing.assert_array_equal(jax.jit(block.apply)(variables, x), x)
