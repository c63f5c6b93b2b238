"""PyTorch files: read without PyTorch, and their weights in Flax networks."""

from gift_jax.torch_io.torch_files import load_torch, save_torch
from gift_jax.torch_io.torch_import import (
    export_torch,
    import_torch,
    import_torchvision,
)

__all__ = [
    "export_torch",
    "import_torch",
    "import_torchvision",
    "load_torch",
    "save_torch",
]
