"""How much the logits of students tell about their targets: cosines and InfoNCE.

Rows of logits are compared with rows of targets, such as a teacher's logits of the same
images. With f_ij = cos(s_i, t_j) / temperature over a block of B images,

    alignment = mean_i f_ii
    spread    = mean_i log mean_j exp(f_ij)
    bound     = alignment - spread

The bound is InfoNCE (van den Oord et al., arXiv 1807.03748; Poole et al., arXiv
1905.06922): its expectation is at most the mutual information of students' and targets'
rows, whatever the temperature, and at most log B. A loss that is a cosine raises the
alignment and leaves the spread alone; the spread is also known as uniformity (Wang and
Isola, arXiv 2005.10242). All of them are in nats.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gift_jax.labels import unit_length


class InfoNCE(NamedTuple):
    """The InfoNCE bound and its two parts, float32 scalars in nats."""

    alignment: jax.Array
    spread: jax.Array

    @property
    def bound(self) -> jax.Array:
        """The bound, at most log B."""
        return self.alignment - self.spread


def _directions(rows: jax.Array, *, centred: bool) -> jax.Array:
    rows = rows.astype(jnp.float32)
    if centred:
        rows = rows - jnp.mean(rows, axis=-1, keepdims=True)
    return unit_length(rows)


def cosines(
    students: jax.Array, targets: jax.Array, *, centred: bool = False
) -> jax.Array:
    """Cosine of every row with its target; 0 where one of them has no direction.

    Args:
      students: (B, C) float logits.
      targets: (B, C) float, such as a teacher's logits.
      centred: Whether to subtract the mean over the classes, on which no prediction
        depends; this gives Pearson's correlation.

    Returns:
      (B,) float32 in [-1, 1].

    >>> cosines(jnp.array([[1.0, 1.0]]), jnp.array([[3.0, 0.0]])).round(4)
    Array([0.7071], dtype=float32)
    """
    left, right = (_directions(rows, centred=centred) for rows in (students, targets))
    return jnp.sum(left * right, axis=-1)


@functools.partial(jax.jit, static_argnames="centred")
def info_nce(
    students: jax.Array,
    targets: jax.Array,
    *,
    temperature: float = 0.1,
    centred: bool = False,
) -> InfoNCE:
    """The InfoNCE bound of one block of images, in which all others are negatives.

    Args:
      students: (B, C) float logits.
      targets: (B, C) float; row i belongs to the image of row i of `students`.
      temperature: Divisor of the cosines.
      centred: See `cosines`.
    """
    left, right = (_directions(rows, centred=centred) for rows in (students, targets))
    scores = (
        jnp.matmul(left, right.T, precision=jax.lax.Precision.HIGHEST) / temperature
    )
    spread = jax.nn.logsumexp(scores, axis=-1) - math.log(len(scores))
    return InfoNCE(jnp.mean(jnp.diagonal(scores)), jnp.mean(spread))


@functools.partial(jax.jit, static_argnames=("block", "centred"))
def info_nce_in_blocks(
    students: jax.Array,
    targets: jax.Array,
    *,
    block: int,
    temperature: float = 0.1,
    centred: bool = False,
) -> InfoNCE:
    """Mean of `info_nce` over consecutive blocks; a last, smaller one is left out.

    Args:
      students: (N, C) float logits, in an order that is independent of the classes.
      targets: (N, C) float.
      block: B, at most N.
      temperature: See `info_nce`.
      centred: See `info_nce`.

    Raises:
      ValueError: the block is larger than N, or smaller than 1.
    """
    if not 0 < block <= len(students):
        raise ValueError(f"block is {block}, expected 1 to {len(students)}")
    blocks = len(students) // block

    def in_blocks(rows: jax.Array) -> jax.Array:
        return jnp.reshape(rows[: blocks * block], (blocks, block, -1))

    found = jax.lax.map(
        lambda rows: info_nce(*rows, temperature=temperature, centred=centred),
        (in_blocks(students), in_blocks(targets)),
    )
    return InfoNCE(*(jnp.mean(part) for part in found))
