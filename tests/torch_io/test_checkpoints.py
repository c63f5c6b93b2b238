"""Where the weights are in a PyTorch checkpoint."""

from pathlib import Path

import numpy as np
import pytest

from gift_jax.runtime.errors import InputError
from gift_jax.torch_io import checkpoints, torch_files

FIXTURES = Path(__file__).parents[1] / "fixtures"
WEIGHTS = {
    "conv.weight": np.ones((2, 3), np.float16),
    "bn.weight": np.ones(2),
    "fc.bias": np.zeros(4),
}


def found(checkpoint, names=WEIGHTS):
    return checkpoints.Tensors(checkpoint, "file.pth").weights(names)


def behind(prefix, tensors=WEIGHTS):
    return {f"{prefix}{name}": value for name, value in tensors.items()}


# How training scripts save weights. The keys and prefixes that the field uses.
CHECKPOINTS = {
    "bare": WEIGHTS,
    **{
        key: {key: WEIGHTS, "epoch": 3}
        for key in ("state_dict", "model", "net", "ema", "model_ema", "params")
    },
    **{
        prefix: behind(prefix)
        for prefix in ("module.", "model.", "net.", "_orig_mod.", "backbone.")
    },
    "two keys": {"model": {"state_dict": WEIGHTS}},
    "two prefixes": behind("module._orig_mod.model."),
    "DataParallel of a part": {
        "features.module.conv.weight": WEIGHTS["conv.weight"],
        "features.module.bn.weight": WEIGHTS["bn.weight"],
        "features.fc.bias": WEIGHTS["fc.bias"],
    },
    "a classifier beside its backbone": {
        "backbone.conv.weight": WEIGHTS["conv.weight"],
        "backbone.bn.weight": WEIGHTS["bn.weight"],
        "fc.bias": WEIGHTS["fc.bias"],
    },
    "n_averaged": {"n_averaged": np.array(3), **behind("module.")},
    "a criterion": {"criterion.weight": np.ones(10), **WEIGHTS},
    "a criterion and a prefix": {"criterion.weight": np.ones(10), **behind("model.")},
    "an optimizer": {
        "optimizer": {"state": {0: {"exp_avg": np.ones(3)}}, "param_groups": [{}]},
        "model": WEIGHTS,
        "lr": 0.1,
    },
    "numbers among them": {**WEIGHTS, "epoch": 3, "best": {"top1": 72.6}},
    "a list of networks": {"networks": [WEIGHTS]},
    "a teacher and its projector": {
        "teacher": WEIGHTS,
        "projector": {"0.weight": np.ones((3, 3))},
    },
}


@pytest.mark.parametrize("checkpoint", CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_weights_are_found_wherever_they_are(checkpoint):
    weights = found(checkpoint)
    assert weights.unused == []
    assert weights.tensors.keys() == WEIGHTS.keys()
    for name, value in weights.tensors.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, WEIGHTS[name])


def test_a_training_script_s_checkpoint():
    checkpoint = torch_files.load_torch(FIXTURES / "torch_checkpoint.pt")
    assert checkpoint["scheduler"]["milestones"] == {3: 1, 5: 1}
    assert checkpoint["classes"] == {"cat", "dog"}
    assert (checkpoint["device"], checkpoint["sparse"]) == (None, None)
    assert checkpoint["dtype"] == "float16"
    names = ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_var"]
    weights = found(checkpoint, names)
    assert list(weights.tensors) == names
    assert weights.place == checkpoints.Place("state_dict", "")
    rounded = torch_files.load_torch(FIXTURES / "torch_checkpoint.safetensors")
    for name, value in found(rounded, names).tensors.items():
        np.testing.assert_allclose(value, weights.tensors[name], rtol=2**-8)


def test_the_place_with_most_of_the_names_is_taken():
    part = {"conv.weight": np.zeros((2, 3))}
    assert found({"net": part, "ema": WEIGHTS}).place.keys == "ema"
    assert found({"net": WEIGHTS, "ema": part}).place.keys == "net"
    # Of equals, what was trained, not its moving average.
    assert found({"model_ema": WEIGHTS, "model": dict(WEIGHTS)}).place.keys == "model"


def test_what_is_missing_is_missing_and_the_rest_is_told():
    weights = found({**WEIGHTS, "fc.scale": np.ones(3)}, ["conv.weight", "fc.weight"])
    assert list(weights.tensors) == ["conv.weight"]
    assert weights.unused == ["bn.weight", "fc.bias", "fc.scale"]


def test_counters_of_batches_are_left_out():
    assert found({**WEIGHTS, "bn.num_batches_tracked": np.array(7)}).unused == []


def test_a_dict_that_holds_itself_is_read():
    checkpoint = {"model": WEIGHTS}
    checkpoint["self"] = [checkpoint]
    assert len(found(checkpoint).tensors) == 3


@pytest.mark.parametrize(
    "checkpoint", [{}, {"epoch": 3}, {"model": {}}, {0: np.zeros(3)}]
)
def test_what_holds_no_weights_is_refused_by_its_entries(checkpoint):
    with pytest.raises(InputError, match=r"file\.pth is no state dict") as caught:
        found(checkpoint)
    assert all(str(entry) in str(caught.value) for entry in checkpoint)


@pytest.mark.parametrize(
    ("content", "kind"), [(np.zeros(3), "tensor"), ([1, 2], "list"), (None, "NoneType")]
)
def test_what_is_no_dict_is_named(content, kind):
    with pytest.raises(InputError, match=f"holds a {kind}, but a checkpoint is a dict"):
        found(content)
