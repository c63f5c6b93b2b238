"""The places of PyTorch's tensors in the variables of a Flax network."""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from gift_jax.torch_io.checkpoints import short_list
from gift_jax.torch_io.names import Table

# PyTorch's names for the leaves of Flax modules.
_TORCH_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


class Slot(NamedTuple):
    """The place of one PyTorch tensor in the Flax variables.

    Attributes:
      path: Path of the variable.
      shape: Shape of the variable.
      flattened: See `names.TorchModule`.
    """

    path: tuple[str, ...]
    shape: tuple[int, ...]
    flattened: tuple[int, int, int] | None

    @property
    def torch_shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        if len(self.shape) == 4:
            height, width, inputs, outputs = self.shape
            return outputs, inputs, height, width
        return self.shape[::-1] if len(self.shape) == 2 else self.shape

    def from_torch(self, tensor: np.ndarray) -> np.ndarray:
        """The variable, from the tensor."""
        if self.flattened:
            tensor = tensor.reshape(-1, *self.flattened)
        if tensor.ndim == 4:
            return tensor.transpose(2, 3, 1, 0).reshape(self.shape)
        return tensor.T if tensor.ndim == 2 else tensor

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """The tensor, from the variable."""
        if self.flattened:
            channels, height, width = self.flattened
            array = array.reshape(height, width, channels, -1)
        if array.ndim == 4:
            return array.transpose(3, 2, 0, 1).reshape(self.torch_shape)
        return array.T if array.ndim == 2 else array


def find_slots(
    module: nn.Module, table: Table, image_size: int, channels: int
) -> dict[str, Slot]:
    """The place of every tensor of the model, by its PyTorch name."""
    images = jax.ShapeDtypeStruct((1, image_size, image_size, channels), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    slots = {}
    for path, leaf in flatten_dict(shapes).items():
        flattened, name = None, path[-1]  # of a parameter of the network itself
        if len(path) > 2:
            torch_module = table["/".join(path[1:-1])]
            flattened = torch_module.flattened if path[-1] == "kernel" else None
            name = f"{torch_module.name}.{_TORCH_LEAVES[path[-1]]}"
        slots[name] = Slot(path, leaf.shape, flattened)
    return slots


def differences(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> str:
    """How two sets of arrays differ, by their names and shapes; "" if they do not."""
    shapes = [
        f"{name} is {found[name]} and should be {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    return "; ".join(
        f"{title}: {short_list(names)}"
        for title, names in (
            ("missing", [name for name in expected if name not in found]),
            ("unused", [name for name in found if name not in expected]),
            ("other shapes", shapes),
        )
        if names
    )
