"""Where the weights are in a PyTorch checkpoint."""

import numpy as np
import pytest

from gift_jax.runtime.errors import InputError
from gift_jax.torch_io import checkpoints

WEIGHTS = {"conv.weight": np.ones((2, 3), np.float16), "fc.bias": np.zeros(4)}


def names(checkpoint):
    return set(checkpoints.state_dict(checkpoint, "file.pth"))


@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_weights_are_found_under_the_usual_keys(wrapper):
    assert names({wrapper: WEIGHTS, "epoch": 3}) == set(WEIGHTS)
    assert names({wrapper: {"state_dict": WEIGHTS}}) == set(WEIGHTS)


def test_a_prefix_of_all_names_is_taken_away():
    assert names({f"module.{name}": v for name, v in WEIGHTS.items()}) == set(WEIGHTS)
    mixed = {"module.conv.weight": WEIGHTS["conv.weight"], "fc.bias": np.zeros(4)}
    assert names(mixed) == set(mixed)


def test_values_become_float32_and_counters_are_left_out():
    found = checkpoints.state_dict(
        {**WEIGHTS, "bn.num_batches_tracked": np.array(7)}, "file.pth"
    )
    assert set(found) == set(WEIGHTS)
    assert all(value.dtype == np.float32 for value in found.values())
    np.testing.assert_array_equal(found["conv.weight"], np.ones((2, 3)))


@pytest.mark.parametrize("checkpoint", [{}, {"epoch": 3}, {**WEIGHTS, "lr": 0.1}])
def test_what_holds_no_weights_is_refused_by_its_entries(checkpoint):
    with pytest.raises(InputError, match=r"file\.pth is no state dict"):
        names(checkpoint)


@pytest.mark.parametrize(
    ("content", "kind"), [(np.zeros(3), "tensor"), ([1, 2], "list"), (None, "NoneType")]
)
def test_what_is_no_dict_is_named(content, kind):
    with pytest.raises(InputError, match=f"holds a {kind}, but a checkpoint is a dict"):
        names(content)
