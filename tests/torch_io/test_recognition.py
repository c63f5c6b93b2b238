"""The network behind the names and shapes of tensors."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from gift_jax import models
from gift_jax.runtime.errors import InputError
from gift_jax.torch_io import import_torch, recognition
from gift_jax.torch_io.checkpoints import Tensors

FIXTURES = Path(__file__).parents[1] / "fixtures"
CASES = runpy.run_path(str(FIXTURES / "torch_reference.py"))["CASES"]
SHAPES = json.loads(str(np.load(FIXTURES / "torch_reference.npz")["shapes"]))
# Their strides are those of another network, and leave no trace.
ALIKE = {"mobilenet_v2_narrow": 224, "mobilenet_v2": 224}
# Others have the same code, and take long.
SLOW = (
    *("resnet34", "resnet50", "resnet101", "resnet34_modified", "resnet101_modified"),
    *("resnet32", "resnet44", "resnet56", "resnet110", "resnet32_akamaster"),
    *("wrn_16_2", "mobilenet_chenyaofo", "vgg16_bn", "vgg19_chenyaofo", "vit_s_16"),
    *("resnet18_kuangliu", "resnet50_modified", "efficientnet_b0", "mobilenet_v2"),
)


def tensors(case):
    empty = {
        name: np.broadcast_to(np.float32(0), shape)
        for name, shape in SHAPES[case].items()
    }
    return Tensors({"model": empty, "optimizer": {}, "epoch": 3}, case)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.slow) if case in SLOW else case
        for case in SHAPES
    ],
)
def test_every_network_is_recognised(case):
    model, image_size, _, options, _ = CASES[case]
    found = recognition.recognise(
        tensors(case), case, image_size=ALIKE.get(case, image_size)
    )
    assert found[0] == model
    defaults = models.model_options(model)
    assert defaults | found[1] == defaults | options


def test_strides_of_small_images_are_chosen_by_their_size():
    small, _ = recognition.recognise(tensors("mobilenet_v2_narrow"), "x", image_size=32)
    assert small == "mobilenet_v2_modified"


def test_without_a_size_the_usual_ones_are_tried():
    found = recognition.recognise(tensors("resnet20_chenyaofo"), "x")
    assert found == ("resnet20", {"shortcut": "projection"})


def conv_state():
    variables = {
        "layers.conv.0.weight": np.ones((6, 3, 3, 3)),
        "layers.conv.0.bias": np.ones(6),
        "classifier.weight": np.ones((4, 6 * 16)),
        "classifier.bias": np.ones(4),
    }
    return {"net": {f"module.{name}": value for name, value in variables.items()}}


def test_import_recognises():
    size = {"num_classes": 4, "image_size": 8}
    found = import_torch(conv_state(), model="auto", **size)
    assert found["params"]["conv0"]["kernel"].shape == (3, 3, 3, 6)
    with pytest.raises(InputError, match=r"has 4 classes.*num_classes is 5"):
        import_torch(conv_state(), model="auto", num_classes=5, image_size=8)


def test_unknown_networks_are_told_the_nearest():
    state = conv_state()
    state["net"]["module.layers.conv.1.weight"] = np.ones((6, 6, 5, 5))
    with pytest.raises(InputError) as caught:
        import_torch(state, model="auto", num_classes=4, image_size=8)
    message = str(caught.value)
    assert "no network that is known here" in message
    assert "nearest to conv2-width=6-norm=none (3 of 3 layers), conv" in message
    assert "torch:package.module:attribute" in message
    assert "\n" not in message
