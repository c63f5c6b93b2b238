"""Initial weights of the networks against PyTorch's definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from gift_jax.models import create_model
from gift_jax.registry import split_options


def uniform(fan_in):
    """torch.nn.Conv2d's and torch.nn.Linear's own: U(-b, b), b = fan_in ** -0.5."""
    return "uniform", fan_in**-0.5


def kaiming(fan):
    """torch.nn.init.kaiming_normal_: N(0, 2 / fan)."""
    return "normal", (2 / fan) ** 0.5


INITIAL_WEIGHTS = {
    "conv3": {
        "conv0/kernel": uniform(27),
        "conv2/kernel": uniform(9 * 128),
        "conv2/bias": uniform(9 * 128),
        "classifier/kernel": uniform(128 * 4 * 4),
    },
    "resnet18": {"conv1/kernel": kaiming(49 * 64), "fc/kernel": uniform(512)},
    # The stem of the modified networks is made anew, by PyTorch's default.
    "resnet18_modified": {
        "conv1/kernel": uniform(27),
        "layer1_0/conv1/kernel": kaiming(9 * 64),
    },
    "resnet20": {
        "conv1/kernel": kaiming(27),
        "layer3_0/conv1/kernel": kaiming(9 * 32),
        "linear/kernel": kaiming(64),
        "linear/bias": uniform(64),
    },
    "resnet20-shortcut=projection": {
        "conv1/kernel": kaiming(9 * 16),
        "layer3_0/downsample_conv/kernel": kaiming(64),
        "linear/kernel": uniform(64),
        "linear/bias": uniform(64),
    },
    "mobilenet_v2": {
        # A depthwise kernel counts all its outputs.
        "block9/depthwise_conv/kernel": kaiming(9 * 384),
        "classifier/kernel": ("normal", 0.01),
    },
    "efficientnet_b0": {
        "stage3_1/excite/kernel": kaiming(480),
        "stage3_1/excite/bias": ("constant", 0),
        "stage3_1/project_bn/scale": ("constant", 1),
        "stage3_1/project_bn/bias": ("constant", 0),
        # The classifier is cut from one of 1000 classes, whatever num_classes is.
        "classifier/kernel": ("uniform", 1000**-0.5),
        "classifier/bias": ("constant", 0),
    },
    "vgg11": {
        "conv2/kernel": kaiming(9 * 256),
        "conv2/bias": ("constant", 0),
        "fc2/kernel": ("normal", 0.01),
    },
    # kuangliu's and DC's definitions keep PyTorch's default.
    "vgg11_bn-head=linear": {
        "conv2/kernel": uniform(9 * 128),
        "conv2/bias": uniform(9 * 128),
        "fc2/kernel": uniform(512),
    },
    "resnet18_modified-norm=instance": {"layer1_0/conv1/kernel": uniform(9 * 64)},
    "vit_t_4": {
        "patch_embed/kernel": uniform(48),
        "patch_embed/bias": uniform(48),
    },
}


@pytest.mark.parametrize("case", INITIAL_WEIGHTS)
def test_initial_weights_are_distributed_as_in_pytorch(case):
    name, options = split_options(case)
    model = create_model(name, num_classes=40, image_size=32, **options)
    expected = INITIAL_WEIGHTS[case]

    @jax.jit  # draws nothing but the parameters that are looked at
    def draw(key):
        params = model.init(key, jnp.zeros((1, 32, 32, 3)))["params"]
        flat = flatten_dict(params, sep="/")
        return {path: flat[path] for path in expected}

    for path, values in jax.device_get(draw(jax.random.key(0))).items():
        kind, scale = expected[path]
        n = values.size
        if kind == "constant":
            assert np.all(values == scale), path
            continue
        if kind == "uniform":
            assert (1 - 10 / n) * scale < np.abs(values).max() <= scale, path
            std = scale / 3**0.5
        else:
            # Flax's truncated normal would leave nothing beyond 2.3 deviations.
            assert np.mean(np.abs(values) > 2.4 * scale) > 0.005, path
            std = scale
        assert abs(values.mean()) < 5 * std / n**0.5, path
        assert values.std() == pytest.approx(std, rel=4 / (2 * n) ** 0.5), path
