"""Soft-label refinement, the first of GIFT's two steps.

Reference: Shang, Sun and Lin, "GIFT: Unlocking Full Potential of Labels in
Distilled Dataset at Near-zero Cost", ICLR 2025, https://arxiv.org/abs/2405.14736.
The constants are those of the official code, `compute_loss` of
`losses_benchmark.py` in https://github.com/LINs-lab/GIFT.

Everything here is a pure function of arrays: it may be jitted, vmapped and
differentiated. All arithmetic is in float32, whatever the dtype of the inputs.
"""

import math

import jax
import jax.numpy as jnp

REFINEMENT_MODES = ("additive", "convex")

# `torch.nn.functional.normalize`, which the official code uses, clamps there.
_SHORTEST = 1e-12


def unit_length(vectors: jax.Array) -> jax.Array:
    """Scales every vector along the last axis to Euclidean length one.

    A vector of zeros, or one shorter than 1e-12, has no direction: it gives
    zeros, and a gradient of zero rather than one of length 1e12.

    Args:
      vectors: (..., C) float.

    Returns:
      (..., C) float32.

    >>> unit_length(jnp.array([[3.0, 4.0], [0.0, 0.0]]))
    Array([[0.6, 0.8],
           [0. , 0. ]], dtype=float32)
    """
    vectors = vectors.astype(jnp.float32)
    squared = jnp.sum(vectors**2, axis=-1, keepdims=True)
    has_direction = ~(squared <= _SHORTEST**2)  # NaN propagates into the result
    # The inner `where` keeps the gradient of the branch not taken finite.
    return jnp.where(
        has_direction, vectors * jax.lax.rsqrt(jnp.where(has_direction, squared, 1)), 0
    )


def smooth_labels(
    labels: jax.Array, num_classes: int, alpha: float | jax.Array = 0.1
) -> jax.Array:
    """Smoothed hard labels: `1 - alpha` on the class, `alpha / (C - 1)` off it.

    This is the smoothing of the official code. PyTorch's `label_smoothing`
    differs: it spreads `alpha / C` over all classes, the right one included.

    Args:
      labels: (...,) integer classes in [0, num_classes). A label outside that
        range cannot be refused inside a traced function; it is spread evenly.
      num_classes: C, at least 2.
      alpha: Share of the probability that leaves the class.

    Returns:
      (..., C) float32; every row sums to one.

    Raises:
      TypeError: `labels` are not integers.
      ValueError: `num_classes` is smaller than 2.

    >>> smooth_labels(jnp.array([1]), 3, alpha=0.2)
    Array([[0.1, 0.8, 0.1]], dtype=float32)
    """
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"hard labels must be integers, got dtype {labels.dtype}")
    if num_classes < 2:
        raise ValueError(f"smoothing needs at least 2 classes, got {num_classes}")
    off_class = alpha / (num_classes - 1)
    one_hot = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
    return one_hot * (1 - alpha - off_class) + off_class


def correct_labels(teacher_logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Raises the logit of the hard label to the largest of the teacher's.

    Where the teacher is right nothing changes. It is for hard labels that are right, as
    those of distilled images are. Wen, Lai and Qian, https://arxiv.org/abs/1911.07471,
    exchange the two instead, which lowers the teacher's logit of its own choice.

    Args:
      teacher_logits: (..., C) float.
      labels: (...,) integer classes. One outside of [0, C) changes nothing.

    Returns:
      (..., C), of the dtype of the logits.

    >>> correct_labels(jnp.array([[1.0, 5.0, 2.0]]), jnp.array([2]))
    Array([[1., 5., 5.]], dtype=float32)
    """
    is_label = jax.nn.one_hot(labels, teacher_logits.shape[-1], dtype=bool)
    largest = jnp.max(teacher_logits, axis=-1, keepdims=True)
    return jnp.where(is_label, largest, teacher_logits)


def check_refinement(
    gamma: float | jax.Array, alpha: float | jax.Array, mode: str
) -> None:
    """Refuses options that have no meaning for `refine_labels`.

    Raises:
      ValueError: an unknown mode, or a number out of range. Arrays are not checked, as
        they may be traced.
    """
    if mode not in REFINEMENT_MODES:
        raise ValueError(
            f"unknown refinement mode {mode!r}, expected one of {REFINEMENT_MODES}"
        )
    if isinstance(alpha, int | float) and not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}, expected a share in [0, 1]")
    if isinstance(gamma, int | float) and not (
        0 <= gamma <= 1 if mode == "convex" else 0 <= gamma < math.inf
    ):
        most = "1]" if mode == "convex" else "inf)"
        raise ValueError(
            f"gamma is {gamma}, expected a weight in [0, {most} in the {mode} mode"
        )


def refine_labels(
    teacher_logits: jax.Array,
    labels: jax.Array,
    *,
    gamma: float | jax.Array = 0.1,
    alpha: float | jax.Array = 0.1,
    mode: str = "additive",
) -> jax.Array:
    """Refines soft labels with the smoothed hard labels, both at unit length.

    With `t` the teacher's logits and `h` the smoothed hard label,

        additive:  unit(t) + gamma * unit(h)                (official code)
        convex:    (1 - gamma) * unit(t) + gamma * unit(h)  (paper and README)

    A cosine ignores the length of its target, so under the cosine loss
    `additive` with gamma equals `convex` with w = gamma / (1 + gamma): the
    official 0.1 is a convex weight of 1/11.

    The logits themselves are normalised, not their softmax: a constant added to
    all logits of a row, which cross-entropy ignores, changes the refined label.

    Args:
      teacher_logits: (..., C) float, raw logits or stored soft labels.
      labels: (...,) integer classes.
      gamma: Weight of the hard label.
      alpha: Smoothing of the hard label, see `smooth_labels`.
      mode: "additive" or "convex".

    Returns:
      (..., C) float32. Rows neither sum to one nor have unit length.

    Raises:
      ValueError: an unknown mode, a weight out of range that is not traced, or shapes
        that do not belong together.

    >>> refine_labels(jnp.array([[0.0, 2.0]]), jnp.array([1]), alpha=0.0)
    Array([[0. , 1.1]], dtype=float32)
    """
    check_refinement(gamma, alpha, mode)
    if teacher_logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"teacher logits {teacher_logits.shape} need labels of shape "
            f"{teacher_logits.shape[:-1]}, got {labels.shape}"
        )
    soft = unit_length(teacher_logits)
    hard = unit_length(smooth_labels(labels, teacher_logits.shape[-1], alpha))
    soft_weight = 1.0 if mode == "additive" else 1.0 - gamma
    return soft_weight * soft + gamma * hard
