"""Arrays of PyTorch and of Flax: the same numbers in another order."""

import numpy as np
import pytest

from gift_jax.torch_io.slots import Slot, differences

PATH = ("params", "layer", "kernel")


@pytest.mark.parametrize(
    ("shape", "torch_shape", "flattened"),
    [
        ((3, 3, 2, 5), (5, 2, 3, 3), None),
        ((4, 6), (6, 4), None),
        ((4,), (4,), None),
        ((1, 5, 8), (1, 5, 8), None),
        ((2 * 2 * 3, 7), (7, 12), (3, 2, 2)),
    ],
)
def test_there_and_back(shape, torch_shape, flattened):
    slot = Slot(PATH, shape, flattened)
    assert slot.torch_shape == torch_shape
    tensor = np.arange(np.prod(shape)).reshape(torch_shape)
    array = slot.from_torch(tensor)
    assert array.shape == shape
    np.testing.assert_array_equal(slot.to_torch(array), tensor)


def test_a_flattened_map_is_read_in_the_other_order():
    # One output that is the sum of channel 1 over the map.
    channels, height, width = 2, 2, 3
    tensor = np.zeros((1, channels, height, width))
    tensor[0, 1] = 1
    slot = Slot(PATH, (12, 1), (channels, height, width))
    images = np.random.default_rng(0).normal(size=(height, width, channels))
    weights = slot.from_torch(tensor.reshape(1, -1))
    assert (images.ravel() @ weights).item() == pytest.approx(images[..., 1].sum())


def test_differences_are_short():
    names = [f"layer{i}.weight" for i in range(9)]
    text = differences(dict.fromkeys(names, (3,)), {"layer0.weight": (4,), "x": (1,)})
    assert text == (
        "missing: layer1.weight, layer2.weight, layer3.weight, layer4.weight, "
        "layer5.weight and 3 more; unused: x; "
        "other shapes: layer0.weight is (4,) and should be (3,)"
    )
    assert differences({"x": (1,)}, {"x": (1,)}) == ""
