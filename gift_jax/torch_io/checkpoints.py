"""The state dict in a PyTorch checkpoint, or that of torchvision's weights."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gift_jax.runtime.errors import InputError, MissingPackageError

# Keys under which training scripts keep the state dict: "model" (RDED, GIFT, SRe2L),
# "state_dict" (akamaster, torchvision references), "net" (kuangliu/pytorch-cifar).
_WRAPPERS = ("model", "state_dict", "net", "model_state_dict", "network", "teacher")
# Prefixes of torch.nn.DataParallel and torch.compile.
_PREFIXES = ("module.", "_orig_mod.")
# Counter of torch.nn.BatchNorm2d that neither evaluation nor training reads here.
_IGNORED_SUFFIX = "num_batches_tracked"


def state_dict(checkpoint: Any, origin: str) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint as float32 arrays, without wrappers and prefixes.

    Args:
        checkpoint: A state dict, or a dict that holds one under a usual key.
        origin: Where it is from, for error messages.

    Raises:
        InputError: It is no dict, no tensors are found, or values among them are not
            tensors.
    """
    if not isinstance(checkpoint, Mapping):
        is_tensor = isinstance(checkpoint, np.ndarray)
        kind = "tensor" if is_tensor else type(checkpoint).__name__
        raise InputError(
            f"{origin} holds a {kind}, but a checkpoint is a dict of tensors by name: "
            "torch.save(network.state_dict(), path)."
        )
    for wrapper in _WRAPPERS:
        if isinstance(checkpoint.get(wrapper), Mapping):
            return state_dict(checkpoint[wrapper], f"{origin} [{wrapper!r}]")
    others = [
        name
        for name, value in checkpoint.items()
        if not (isinstance(name, str) and _is_tensor(value))
    ]
    if others or not checkpoint:
        raise InputError(
            f"{origin} is no state dict: it has the entries "
            f"{', '.join(map(str, list(checkpoint)[:8])) or '(none)'}, of which "
            f"{len(others)} are not tensors under a name. Expected only those, or a "
            f"dict with them under one of the keys {', '.join(_WRAPPERS)}."
        )
    tensors = {
        name: _to_numpy(value)
        for name, value in checkpoint.items()
        if not name.endswith(_IGNORED_SUFFIX)
    }
    while prefix := next((p for p in _PREFIXES if _all_start(tensors, p)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _all_start(names: Mapping[str, Any], prefix: str) -> bool:
    return bool(names) and all(name.startswith(prefix) for name in names)


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _to_numpy(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a PyTorch tensor, maybe bfloat16 or on a GPU
        value = value.detach().cpu().float().numpy()
    return np.asarray(value, np.float32)


def torchvision_state_dict(name: str, weights: str) -> Mapping[str, Any]:
    """The state dict that torchvision publishes for one of its networks.

    Args:
        name: Name of the network in torchvision.
        weights: Name of the weights, for example "IMAGENET1K_V1".

    Raises:
        ImportError: PyTorch or torchvision cannot be imported.
        ConnectionError: The weights are not in PyTorch's cache and cannot be fetched.
        InputError: torchvision has no such network or weights.
    """
    try:
        from torchvision.models import get_model_weights, list_models
    except (ImportError, RuntimeError) as error:  # the latter: for another PyTorch
        raise MissingPackageError(
            f"The ImageNet weights of {name} need PyTorch and torchvision, which "
            f'cannot be imported ({error}): pip install "gift_jax[torch]"'
        ) from error
    if name not in list_models():
        raise InputError(f"torchvision has no network {name!r}, so no weights for it.")
    available = get_model_weights(name)
    if weights not in available.__members__:
        raise InputError(
            f"torchvision has no weights {weights!r} for {name}; it has "
            f"{', '.join(available.__members__)}."
        )
    entry = available[weights]
    try:
        return entry.get_state_dict(check_hash=True)
    except OSError as error:
        raise ConnectionError(
            f"Could not fetch the weights of {name} from {entry.url}: {error}. "
            "Download that file elsewhere and pass its path to import_torch."
        ) from error
