"""CDA: SRe2L that begins with whole images, and lets crops become smaller.

Reference: Yin and Shen, "Dataset Distillation via Curriculum Data Synthesis in Large
Data Era", TMLR 2024, https://arxiv.org/abs/2311.18838, and its official code, `CDA/` in
https://github.com/VILA-Lab/SRe2L.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from gift_jax import registry
from gift_jax.distill.recovery import sre2l
from gift_jax.runtime.errors import InputError

CURRICULA = ("cosine", "linear", "step")

# `recover_cda_tiny.py` and `recover_cda_in1k.py` with the options of the README. There
# is no script for CIFAR: crops and rolls are those for Tiny-ImageNet, iterations,
# learning rate and weight those of SRe2L on CIFAR.
_CONSTANTS = (
    (32, sre2l.Constants(1000, 0.25, 0.01, (0, 4), True)),
    (64, sre2l.Constants(4000, 0.4, 0.05, (0, 4), True)),
    (10**9, sre2l.Constants(4000, 0.25, 0.01, (0, 32), True)),
)


@dataclasses.dataclass(frozen=True)
class Cda(sre2l.Sre2l):
    """SRe2L with a curriculum over the least area of crops.

    Attributes:
      ipc: Images per class, at least 1.
      iterations: Iterations per batch; 0 stands for the constant of the image size.
      learning_rate: Learning rate of Adam; 0 as for `iterations`.
      bn_weight: Weight of the distance of statistics; 0 as for `iterations`.
      batch_size: Most images that are recovered together; 100 in the official code.
      curriculum: How the least area falls from 1 to 0.08: "cosine", "linear" or
        "step".
      milestone: Share of the iterations over which it falls; it is 0.08 in the rest.
        The README takes 1.

    Raises:
      InputError: an unknown curriculum, or a milestone beyond 1.
    """

    by_side: ClassVar[Any] = _CONSTANTS

    curriculum: str = "cosine"
    milestone: float = 1.0

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        if self.curriculum not in CURRICULA:
            raise registry.unknown_name("curriculum", self.curriculum, CURRICULA)
        if self.milestone > 1:
            raise InputError(
                f"Cda: milestone is {self.milestone}, expected a share of the "
                "iterations, at most 1"
            )

    def min_area(self, iteration: jax.Array, iterations: int) -> jax.Array:
        """The least area of crops by the curriculum."""
        return min_area(iteration, self.milestone * iterations, self.curriculum)


def min_area(iteration: jax.Array, last: float, curriculum: str) -> jax.Array:
    """The least area of crops in an iteration, as a fraction of the image.

    Args:
      iteration: int32 scalar, from zero.
      last: From this iteration on it is 0.08.
      curriculum: One of `CURRICULA`.
    """
    done = iteration / max(last, 1.0)
    shares = {
        "cosine": (1 + jnp.cos(jnp.pi * done)) / 2,
        "linear": 1 - done,
        "step": jnp.ones_like(done),
    }
    share = jnp.where(iteration < last, shares[curriculum], 0.0)
    return sre2l.MIN_AREA + (1 - sre2l.MIN_AREA) * share
