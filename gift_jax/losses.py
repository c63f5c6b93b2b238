"""The losses that students are trained with on soft labels.

Every loss has the same form,

    loss(student_logits, teacher_logits, labels, **hyper) -> (B,) float32

and returns one value per example; the scalar of the official code is their
mean. `get_loss` binds the hyperparameters of a loss chosen by name.

The definitions, and the defaults of the hyperparameters, are those of the
official code, `losses_benchmark.py` in https://github.com/LINs-lab/GIFT. GIFT
itself is `gift`; the others are the losses that it is compared with in
Shang, Sun and Lin, ICLR 2025, https://arxiv.org/abs/2405.14736.

Logits may be float16, bfloat16 or float32; the arithmetic is in float32. All
losses are jitted and pure, and have finite values and gradients for rows of
zeros, constant rows and logits of 1e4.
"""

import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gift_jax import labels as labels_lib

Loss = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

_LOSSES: dict[str, Callable[..., jax.Array]] = {}


def _loss(*static: str) -> Callable[[Callable[..., jax.Array]], Callable]:
    """Registers a loss under its name, with its inputs checked and in float32."""

    def register(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        @functools.partial(jax.jit, static_argnames=static)
        @functools.wraps(function)
        def loss(
            student_logits: jax.Array,
            teacher_logits: jax.Array,
            labels: jax.Array,
            **hyper: float | str | bool,
        ) -> jax.Array:
            _check_shapes(student_logits, teacher_logits, labels)
            return function(
                student_logits.astype(jnp.float32),
                teacher_logits.astype(jnp.float32),
                labels,
                **hyper,
            )

        _LOSSES[function.__name__] = loss
        return loss

    return register


def _check_shapes(
    student_logits: jax.Array, teacher_logits: jax.Array, labels: jax.Array
) -> None:
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"student logits {student_logits.shape} and teacher logits "
            f"{teacher_logits.shape} must have the same shape (B, C)"
        )
    if labels.shape != student_logits.shape[:-1]:
        raise ValueError(
            f"logits {student_logits.shape} need hard labels of shape "
            f"{student_logits.shape[:-1]}, got {labels.shape}"
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"hard labels must be integers, got dtype {labels.dtype}")


def _cosine_distance(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    # optax.cosine_distance has no finite gradient at a vector of zeros.
    unit_predictions = labels_lib.unit_length(predictions)
    unit_targets = labels_lib.unit_length(targets)
    return 1.0 - jnp.sum(unit_predictions * unit_targets, axis=-1)


@_loss("mode")
def gift(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    labels: jax.Array,
    *,
    gamma: float = 0.1,
    alpha: float = 0.1,
    mode: str = "additive",
) -> jax.Array:
    """GIFT: one minus the cosine between student and refined soft label.

        1 - cos(student_logits, refine_labels(teacher_logits, labels))

    The value lies in [0, 2]. The gradient is orthogonal to the student's
    logits and falls with one over their length.

    Args:
      student_logits: (B, C) float.
      teacher_logits: (B, C) float, raw logits.
      labels: (B,) integer classes.
      gamma: Weight of the hard label in the refinement.
      alpha: Smoothing of the hard label.
      mode: "additive" (official code) or "convex" (paper), see
        `gift_jax.labels.refine_labels`.

    Returns:
      (B,) float32.
    """
    refined = labels_lib.refine_labels(
        teacher_logits, labels, gamma=gamma, alpha=alpha, mode=mode
    )
    return _cosine_distance(student_logits, refined)


@_loss()
def cosine(
    student_logits: jax.Array, teacher_logits: jax.Array, labels: jax.Array
) -> jax.Array:
    """One minus the cosine between student and teacher logits; labels unused.

    This is `gift` without the refinement (gamma = 0).

    Args:
      student_logits: (B, C) float.
      teacher_logits: (B, C) float, raw logits.
      labels: (B,) integer classes.

    Returns:
      (B,) float32 in [0, 2].
    """
    del labels
    return _cosine_distance(student_logits, teacher_logits)


@_loss()
def ce(
    student_logits: jax.Array, teacher_logits: jax.Array, labels: jax.Array
) -> jax.Array:
    """Cross-entropy with the hard labels; the teacher is unused.

    Args:
      student_logits: (B, C) float.
      teacher_logits: (B, C) float.
      labels: (B,) integer classes in [0, C); a label outside cannot be refused
        inside a traced function, and its value means nothing.

    Returns:
      (B,) float32.
    """
    del teacher_logits
    return optax.softmax_cross_entropy_with_integer_labels(student_logits, labels)


@_loss()
def soft_ce(
    student_logits: jax.Array, teacher_logits: jax.Array, labels: jax.Array
) -> jax.Array:
    """Cross-entropy with the teacher's softmax, temperature 1 on both sides.

    Args:
      student_logits: (B, C) float.
      teacher_logits: (B, C) float, raw logits.
      labels: (B,) integer classes, unused.

    Returns:
      (B,) float32.
    """
    del labels
    return optax.softmax_cross_entropy(student_logits, jax.nn.softmax(teacher_logits))


@_loss("t_squared", "refine")
def kl(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    labels: jax.Array,
    *,
    temperature: float = 20.0,
    t_squared: bool = False,
    refine: bool = False,
) -> jax.Array:
    """Kullback-Leibler divergence from teacher to student, both softened.

        sum softmax(t / T) * (log softmax(t / T) - log softmax(s / T))

    Without `t_squared`, as in the official code, the gradient is 1 / T^2 (400
    times at T = 20) smaller than in Hinton et al., https://arxiv.org/abs/1503.02531:
    Adam-like optimizers hide that, SGD at its usual learning rate does not.

    Args:
      student_logits: (B, C) float.
      teacher_logits: (B, C) float, raw logits.
      labels: (B,) integer classes, unused unless `refine` is set.
      temperature: T.
      t_squared: Multiply by T^2.
      refine: The teacher's logits are refined as those of `gift` are, and brought
        back to their length: GIFT's first step without its second, for ablations.

    Returns:
      (B,) float32.
    """
    if refine:
        length = jnp.linalg.norm(teacher_logits, axis=-1, keepdims=True)
        refined = labels_lib.refine_labels(teacher_logits, labels)
        teacher_logits = length * labels_lib.unit_length(refined)
    log_student = jax.nn.log_softmax(student_logits / temperature)
    log_teacher = jax.nn.log_softmax(teacher_logits / temperature)
    divergence = optax.losses.kl_divergence_with_log_targets(log_student, log_teacher)
    return divergence * temperature**2 if t_squared else divergence


@_loss()
def mse(
    student_logits: jax.Array, teacher_logits: jax.Array, labels: jax.Array
) -> jax.Array:
    """Mean squared difference of the logits over the classes.

    Args:
      student_logits: (B, C) float.
      teacher_logits: (B, C) float, raw logits.
      labels: (B,) integer classes, unused.

    Returns:
      (B,) float32.
    """
    del labels
    return jnp.mean((student_logits - teacher_logits) ** 2, axis=-1)


@_loss()
def mse_ce(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    labels: jax.Array,
    *,
    ce_weight: float = 0.1,
) -> jax.Array:
    """`mse` plus `ce_weight` times `ce` (the loss of G-VBSM and EDC).

    Args:
      student_logits: (B, C) float.
      teacher_logits: (B, C) float, raw logits.
      labels: (B,) integer classes.
      ce_weight: Weight of the cross-entropy with the hard labels.

    Returns:
      (B,) float32.
    """
    hard = ce(student_logits, teacher_logits, labels)
    return mse(student_logits, teacher_logits, labels) + ce_weight * hard


@_loss()
def soft_ce_ce(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    labels: jax.Array,
    *,
    ce_weight: float = 0.1,
) -> jax.Array:
    """`soft_ce` plus `ce_weight` times `ce`.

    Args:
      student_logits: (B, C) float.
      teacher_logits: (B, C) float, raw logits.
      labels: (B,) integer classes.
      ce_weight: Weight of the cross-entropy with the hard labels.

    Returns:
      (B,) float32.
    """
    hard = ce(student_logits, teacher_logits, labels)
    return soft_ce(student_logits, teacher_logits, labels) + ce_weight * hard


LOSS_NAMES = tuple(_LOSSES)

_RANGES: dict[str, tuple[float, float]] = {
    "alpha": (0.0, 1.0),
    "gamma": (0.0, float("inf")),
    "temperature": (1e-3, float("inf")),
    "ce_weight": (0.0, float("inf")),
}


def hyperparameters(name: str) -> dict[str, float | str | bool]:
    """The hyperparameters of a loss, with their defaults.

    Raises:
      ValueError: `name` is not one of `LOSS_NAMES`.

    >>> hyperparameters("kl")
    {'temperature': 20.0, 't_squared': False, 'refine': False}
    """
    if name not in _LOSSES:
        # Not naming.unknown_name, so that this file is copied with labels.py alone.
        near = difflib.get_close_matches(name, LOSS_NAMES, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(
            f"unknown loss {name!r}{hint}; known losses: {', '.join(LOSS_NAMES)}"
        )
    parameters = inspect.signature(_LOSSES[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind == p.KEYWORD_ONLY}


def get_loss(name: str, **hyper: Any) -> Loss:
    """The loss of that name with its hyperparameters bound.

    Args:
      name: One of `LOSS_NAMES`.
      **hyper: Hyperparameters of that loss; those left out keep their default.

    Returns:
      `loss(student_logits, teacher_logits, labels)` -> (B,) float32.

    Raises:
      ValueError: an unknown name, a hyperparameter the loss does not have, or a
        value that it does not know.

    >>> loss = get_loss("gift", gamma=0.0)
    >>> loss(jnp.eye(2), 3 * jnp.eye(2), jnp.array([0, 1]))
    Array([0., 0.], dtype=float32)
    """
    known = hyperparameters(name)
    unknown = sorted(set(hyper) - set(known))
    if unknown:
        raise ValueError(
            f"loss {name!r} has no hyperparameter {unknown[0]!r}; "
            f"it has {', '.join(known) or 'none'}"
        )
    loss = functools.partial(_LOSSES[name], **hyper)
    for option, (least, most) in _RANGES.items():
        if option in hyper and not least <= hyper[option] <= most:
            raise ValueError(
                f"{option} of loss {name!r} is {hyper[option]}, expected a value in "
                f"[{least}, {most}]"
            )
    # Traced once, so that a bad value is an error here and not in the first step.
    logits = jax.ShapeDtypeStruct((1, 2), jnp.float32)
    jax.eval_shape(loss, logits, logits, jax.ShapeDtypeStruct((1,), jnp.int32))
    return loss
