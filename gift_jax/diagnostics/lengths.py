"""Lengths of logits, and of the layer that they come from.

A loss that is blind to the length of the logits has a gradient that is orthogonal to
the last layer's weights and bias: without weight decay they can only grow, and as they
do the gradient falls.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax


def logit_lengths(logits: jax.Array, *, centred: bool = False) -> jax.Array:
    """Euclidean length of every row.

    Args:
      logits: (B, C) float.
      centred: Whether to subtract the mean over the classes first.

    Returns:
      (B,) float32.
    """
    logits = logits.astype(jnp.float32)
    if centred:
        logits = logits - jnp.mean(logits, axis=-1, keepdims=True)
    return jnp.linalg.norm(logits, axis=-1)


def last_layer_length(params: Mapping[str, Any], num_classes: int) -> jax.Array | None:
    """Euclidean length of weights and bias of a network's last layer.

    That is the only top-level layer with a matrix whose outputs are the classes.

    Args:
      params: Parameters of a Flax network.
      num_classes: C.

    Returns:
      A float32 scalar; None where there is no such layer, or there are several.
    """
    matrices = {name: _kernel(layer) for name, layer in params.items()}
    found = [
        params[name]
        for name, kernel in matrices.items()
        if kernel is not None and kernel.ndim == 2 and kernel.shape[1] == num_classes
    ]
    return optax.tree.norm(found[0]) if len(found) == 1 else None


def _kernel(layer: Any) -> jax.Array | None:
    return layer.get("kernel") if isinstance(layer, Mapping) else None
