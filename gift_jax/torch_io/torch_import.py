"""Weights from PyTorch checkpoints, and back.

Arrays are converted by the tables of `names`: convolution kernels between OIHW
and HWIO, linear kernels transposed, and where a linear layer reads a flattened feature
map, its inputs permuted between (C, H, W) and (H, W, C) order. PyTorch is needed for
the weights of torchvision only.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from gift_jax.models.registry import create_model
from gift_jax.runtime.errors import InputError
from gift_jax.torch_io import checkpoints, torch_files
from gift_jax.torch_io.names import Table, torch_tables

# PyTorch's names for the leaves of Flax modules.
_TORCH_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


class _Slot(NamedTuple):
    """The place of one PyTorch tensor in the Flax variables."""

    path: tuple[str, ...]
    shape: tuple[int, ...]
    flattened: tuple[int, int, int] | None

    @property
    def torch_shape(self) -> tuple[int, ...]:
        if len(self.shape) == 4:
            height, width, inputs, outputs = self.shape
            return outputs, inputs, height, width
        return self.shape[::-1] if len(self.shape) == 2 else self.shape

    def from_torch(self, tensor: np.ndarray) -> np.ndarray:
        if self.flattened:
            tensor = tensor.reshape(-1, *self.flattened)
        if tensor.ndim == 4:
            return tensor.transpose(2, 3, 1, 0).reshape(self.shape)
        return tensor.T if tensor.ndim == 2 else tensor

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        if self.flattened:
            channels, height, width = self.flattened
            array = array.reshape(height, width, channels, -1)
        if array.ndim == 4:
            return array.transpose(3, 2, 0, 1).reshape(self.torch_shape)
        return array.T if array.ndim == 2 else array


def import_torch(
    source: str | Path | Mapping[str, Any],
    *,
    model: str,
    num_classes: int,
    image_size: int,
    **options: Any,
) -> dict[str, Any]:
    """Flax variables of a model from a PyTorch checkpoint.

    Understands torchvision's names, those of the ConvNets of RDED and GIFT
    (`layers.conv.0`) and of DATM and its relatives (`features.0`), and those of
    akamaster/pytorch_resnet_cifar10. A dict around the state dict (under "model",
    "state_dict", ...) and the prefixes of DataParallel and torch.compile are taken off.
    The channels of the images follow from the first convolution.

    Args:
        source: Path of a checkpoint, or a state dict of NumPy arrays or tensors.
        model: Name of the model, as in `create_model`.
        num_classes: Classes that the checkpoint's classifier has.
        image_size: Height and width of the images.
        **options: Options of the model, as in `create_model`.

    Returns:
        {"params": tree, "batch_stats": tree} of float32 NumPy arrays, shaped as by
        `init_variables`; "batch_stats" is empty for a model without batch norm.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: The file is no checkpoint or would run code, or its tensors do not
            fit the model: other classes, missing, unused or of other shapes.
    """
    module = create_model(
        model, num_classes=num_classes, image_size=image_size, **options
    )
    if isinstance(source, Mapping):
        origin, checkpoint = "The given dict", source
    else:
        origin, checkpoint = str(source), torch_files.load_torch(source)
    tensors = checkpoints.state_dict(checkpoint, origin)

    tables = torch_tables(module).values()
    table = max(tables, key=lambda table: _names_in_common(table, tensors))
    stem, *_, head = (f"{torch_module.name}.weight" for torch_module in table.values())
    if head in tensors and len(tensors[head]) != num_classes:
        raise InputError(
            f"{origin} has {len(tensors[head])} classes (rows of {head!r}), but "
            f"num_classes is {num_classes}."
        )
    has_stem = stem in tensors and tensors[stem].ndim == 4
    channels = tensors[stem].shape[1] if has_stem else 3
    slots = _slots(module, table, image_size, channels)
    _check_fit(
        f"{origin} does not fit {model}",
        expected={name: slot.torch_shape for name, slot in slots.items()},
        found={name: tensor.shape for name, tensor in tensors.items()},
    )
    flat = {
        slot.path: np.ascontiguousarray(slot.from_torch(tensors[name]))
        for name, slot in slots.items()
    }
    return {"batch_stats": {}, **unflatten_dict(flat)}


def export_torch(
    variables: Mapping[str, Any],
    *,
    model: str,
    num_classes: int,
    image_size: int,
    layout: str | None = None,
    **options: Any,
) -> dict[str, np.ndarray]:
    """A PyTorch state dict from Flax variables, the inverse of `import_torch`.

    `load_state_dict` takes it after `torch.from_numpy`: the counters
    `num_batches_tracked`, which Flax does not keep, start at zero. The official
    evaluators of RDED and GIFT read `save_torch(path, {"model": state dict})`.

    Args:
        variables: {"params": tree, "batch_stats": tree}.
        model: Name of the model, as in `create_model`.
        num_classes: Length of the logits.
        image_size: Height and width of the images.
        layout: For conv{depth} "layers" (the default: RDED, GIFT) or "features" (DATM
            and its relatives); other models have one layout.
        **options: Options of the model, as in `create_model`.

    Returns:
        float32 arrays by PyTorch's names.

    Raises:
        InputError: The model has no such layout, or the variables do not fit it.
    """
    module = create_model(
        model, num_classes=num_classes, image_size=image_size, **options
    )
    tables = torch_tables(module)
    layout = layout or next(iter(tables))
    if layout not in tables:
        raise InputError(
            f"{model} has no layout {layout!r}; it has {', '.join(tables)}."
        )
    collections = {name: variables.get(name, {}) for name in ("params", "batch_stats")}
    leaves = flatten_dict(jax.device_get(collections))
    stem = next(iter(tables[layout]))
    kernel = leaves.get(("params", *stem.split("/"), "kernel"))
    channels = 3 if kernel is None else kernel.shape[2]
    slots = _slots(module, tables[layout], image_size, channels)
    _check_fit(
        f"The variables do not fit {model}",
        expected={"/".join(slot.path): slot.shape for slot in slots.values()},
        found={"/".join(path): np.shape(leaf) for path, leaf in leaves.items()},
    )
    return {
        name: np.ascontiguousarray(
            slot.to_torch(np.asarray(leaves[slot.path], np.float32))
        )
        for name, slot in slots.items()
    }


def import_torchvision(
    model: str, *, image_size: int = 224, weights: str = "IMAGENET1K_V1"
) -> dict[str, Any]:
    """Flax variables of a model with torchvision's ImageNet-1k weights.

    The first weights, IMAGENET1K_V1, are the teachers of RDED and GIFT on ImageNet-1k.

    Args:
        model: "resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2",
            "efficientnet_b0" or "vgg11".
        image_size: Height and width of the images.
        weights: torchvision's name of the weights.

    Returns:
        See `import_torch`; the model has 1000 classes.

    Raises:
        ConnectionError: The weights are not in PyTorch's cache and cannot be fetched.
        ImportError: PyTorch or torchvision cannot be imported.
        InputError: torchvision has no such model or weights.
    """
    state = checkpoints.torchvision_state_dict(model, weights)
    return import_torch(state, model=model, num_classes=1000, image_size=image_size)


def _names_in_common(table: Table, tensors: Mapping[str, Any]) -> int:
    return sum(f"{module.name}.weight" in tensors for module in table.values())


def _slots(
    module: nn.Module, table: Table, image_size: int, channels: int
) -> dict[str, _Slot]:
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
        slots[name] = _Slot(path, leaf.shape, flattened)
    return slots


def _check_fit(
    what: str,
    *,
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
) -> None:
    """Raises a ValueError that lists every difference between two sets of arrays."""
    missing = [name for name in expected if name not in found]
    unused = [name for name in found if name not in expected]
    differing = [
        f"{name} is {found[name]} and should be {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    differences = [
        f"{title}: {', '.join(names)}"
        for title, names in (
            ("missing", missing),
            ("unused", unused),
            ("other shapes", differing),
        )
        if names
    ]
    if differences:
        raise InputError(f"{what}; {'; '.join(differences)}.")
