"""Weights from PyTorch checkpoints, and back.

Arrays are converted by the tables of `names`: convolution kernels between OIHW
and HWIO, linear kernels transposed, and where a linear layer reads a flattened feature
map, its inputs permuted between (C, H, W) and (H, W, C) order. PyTorch is needed for
the weights of torchvision only.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from gift_jax.models.registry import create_model
from gift_jax.runtime.errors import InputError
from gift_jax.torch_io import checkpoints, recognition, torch_files
from gift_jax.torch_io.checkpoints import Tensors
from gift_jax.torch_io.names import torch_tables
from gift_jax.torch_io.slots import differences, find_slots

_log = logging.getLogger(__name__)


def import_torch(
    source: str | Path | Mapping[str, Any] | Tensors,
    *,
    model: str,
    num_classes: int,
    image_size: int,
    **options: Any,
) -> dict[str, Any]:
    """Flax variables of a model from a PyTorch checkpoint.

    Understands the names of `names`: torchvision's, those of the ConvNets of RDED and
    GIFT (`layers.conv.0`) and of DATM and its relatives (`features.0`), and those of
    the usual repositories for CIFAR. The weights may be in any dict of the file and
    behind any prefix. The channels of the images follow from the first convolution.

    Args:
      source: Path of a checkpoint, a state dict of NumPy arrays or tensors, or what
          `open_checkpoint` has read.
      model: Name of the model, as in `create_model`; "auto" recognises it, with its
          options, from the tensors.
      num_classes: Classes that the checkpoint's classifier has.
      image_size: Height and width of the images.
      **options: Options of the model, as in `create_model`.

    Returns:
      {"params": tree, "batch_stats": tree} of float32 NumPy arrays, shaped as by
      `init_variables`; "batch_stats" is empty for a model without batch norm.

    Raises:
      FileNotFoundError: There is no such file.
      InputError: The file is no checkpoint or would run code, or its tensors do not
          fit the model: other classes, missing, unused or of other shapes; or "auto"
          knows no model that they fit.
    """
    tensors = open_checkpoint(source)
    origin = tensors.origin
    if model == recognition.AUTO:
        model, options = recognition.recognise(tensors, origin, image_size=image_size)
    module = create_model(
        model, num_classes=num_classes, image_size=image_size, **options
    )
    fit = recognition.fit(module, tensors, image_size)
    if fit.num_classes not in (None, num_classes):
        raise InputError(
            f"{origin} has {fit.num_classes} classes (rows of {fit.head!r}), but "
            f"num_classes is {num_classes}."
        )
    if fit.differences:
        near = recognition.nearest(tensors, image_size=image_size)
        raise InputError(
            f"{origin} does not fit {model}; {fit.differences}. By its tensors it is "
            f"{near}: see teacher.name=auto."
        )
    flat = {
        slot.path: np.ascontiguousarray(slot.from_torch(fit.weights.tensors[name]))
        for name, slot in fit.slots.items()
    }
    _log.info("%s: weights of %s at %s", origin, model, fit.weights.place)
    return {"batch_stats": {}, **unflatten_dict(flat)}


def open_checkpoint(source: str | Path | Mapping[str, Any] | Tensors) -> Tensors:
    """The tensors of a checkpoint, wherever they are in it.

    Args:
      source: Path of a checkpoint, or a dict; what is open already stays as it is.

    Raises:
      FileNotFoundError: There is no such file.
      InputError: It holds no tensors.
    """
    if isinstance(source, Tensors):
        return source
    if isinstance(source, Mapping):
        return Tensors(source, "The given dict")
    return Tensors(torch_files.load_torch(source), str(source))


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
    slots = find_slots(module, tables[layout], image_size, channels)
    differing = differences(
        expected={"/".join(slot.path): slot.shape for slot in slots.values()},
        found={"/".join(path): np.shape(leaf) for path, leaf in leaves.items()},
    )
    if differing:
        raise InputError(f"The variables do not fit {model}; {differing}.")
    return {
        name: np.ascontiguousarray(
            slot.to_torch(np.asarray(leaves[slot.path], np.float32))
        )
        for name, slot in slots.items()
    }


def import_torchvision(
    model: str,
    *,
    image_size: int = 224,
    weights: str = checkpoints.TORCHVISION_WEIGHTS,
) -> dict[str, Any]:
    """Flax variables of a model with torchvision's ImageNet-1k weights.

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
