"""Students and teachers as Flax modules.

`create_model(name, ...)` builds a network and `init_variables` draws its weights;
`gift_jax.torch_io` exchanges them with PyTorch checkpoints.
"""

from gift_jax.models.registry import (
    MODELS,
    check_model,
    create_model,
    init_variables,
    model_options,
)

__all__ = ["MODELS", "check_model", "create_model", "init_variables", "model_options"]
