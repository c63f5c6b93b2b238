"""What Muon's lead over AdamW comes from: layers, directions or lengths of updates.

    python -m experiments.optimizer_parts --config=configs/cifar10.py --workdir=DIR

`parts` computes the updates of both for every matrix, and takes for each layer the one,
the other, or the direction of one at the length of the other. It is named like any
optimizer of the user's own:
`--config.optimizer.name=gift_jax.experiments.optimizer_parts:parts-last=adamw`.
docs/results.md has what came of it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax

from gift_jax import main, optimizers

_PARTS = "gift_jax.experiments.optimizer_parts:parts"
_ALL = ("first", "hidden", "last")
VARIANTS = (
    *("", "-last=adamw", "-first=adamw", "-hidden=adamw", "-first=adamw-last=adamw"),
    *("".join(f"-{layer}={taken}" for layer in _ALL) for taken in
      ("adamw", "muon_direction", "muon_length")),
)  # fmt: skip
_MUON, _ADAMW = (optimizers.OptimizerSpec(name) for name in ("muon", "adamw"))


class _State(NamedTuple):
    muon: Any
    adamw: Any


def parts(
    learning_rate: optax.Schedule = _MUON.learning_rate,
    *,
    first: str = "muon",
    hidden: str = "muon",
    last: str = "muon",
    adamw_rate: float = _ADAMW.learning_rate,
) -> optax.GradientTransformation:
    """Muon, but each kind of layer can be trained otherwise; without weight decay.

    Each of a ConvNet's first convolution, its hidden ones and its classifier takes
    "muon"; "adamw"; "muon_direction", at the Frobenius length of AdamW's update; or
    "muon_length", in the direction of AdamW's. Vectors stay with the AdamW that Muon
    has for them.

    Args:
      learning_rate: Muon's learning rate, by the step.
      first: Update of the convolution with the fewest inputs.
      hidden: Update of the other convolutions.
      last: Update of matrices.
      adamw_rate: Peak of AdamW's learning rate, which follows the same schedule.
    """
    scale = adamw_rate / _MUON.learning_rate
    muon = _without_decay(_MUON, learning_rate)
    adamw = _without_decay(_ADAMW, lambda step: scale * learning_rate(step))
    taken = {"first": first, "hidden": hidden, "last": last}
    for layer, name in taken.items():
        if name not in _TAKEN:
            raise ValueError(f"{layer} is {name!r}, expected one of {list(_TAKEN)}")

    def update(gradients: Any, state: _State, params: Any) -> tuple[Any, _State]:
        by_muon, muon_state = muon.update(gradients, state.muon, params)
        by_adamw, adamw_state = adamw.update(gradients, state.adamw, params)
        inputs = [x.shape[2] for x in jax.tree.leaves(params) if x.ndim == 4]

        def of_layer(x: jax.Array, ours: jax.Array, theirs: jax.Array) -> jax.Array:
            if x.ndim < 2:
                return ours
            is_first = x.ndim == 4 and x.shape[2] == min(inputs)
            layer = "first" if is_first else "hidden" if x.ndim == 4 else "last"
            return _TAKEN[taken[layer]](ours, theirs)

        updates = jax.tree.map(of_layer, params, by_muon, by_adamw)
        return updates, _State(muon_state, adamw_state)

    return optax.GradientTransformation(
        lambda params: _State(muon.init(params), adamw.init(params)), update
    )


def _without_decay(
    spec: optimizers.OptimizerSpec, rate: Callable[[Any], Any]
) -> optax.GradientTransformation:
    build = optimizers.OPTIMIZERS[spec.name].build
    return build(optimizers.OptimizerSpec(spec.name, weight_decay=0.0), rate)


def _at_length(direction: jax.Array, other: jax.Array) -> jax.Array:
    length = jnp.linalg.norm(direction)
    scale = jnp.where(length > 0, jnp.linalg.norm(other) / (length + 1e-30), 0)
    return scale * direction


_TAKEN: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "muon": lambda muon, adamw: muon,
    "adamw": lambda muon, adamw: adamw,
    "muon_direction": _at_length,
    "muon_length": lambda muon, adamw: _at_length(adamw, muon),
}


def study(config: ml_collections.ConfigDict) -> None:
    """Muon, AdamW and eight between them, three losses, three seeds."""
    config.distilled.name = "rded"
    config.loss.name = "kl-t_squared=True+gift+standardized_gift"
    between = (_PARTS + variant for variant in VARIANTS)
    config.optimizer.name = "+".join(["muon", "adamw", *between])
    config.train.seeds = (0, 1, 2)


if __name__ == "__main__":
    main.run(study)
