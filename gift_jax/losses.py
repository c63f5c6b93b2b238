"""The losses that students are trained with on soft labels.

Every loss has the same form,

    loss(student_logits, teacher_logits, labels, **hyper) -> (B,) float32

and returns one value per example; the scalar of the official code is their
mean. Logits are (B, C) float, not softmaxed, and labels (B,) integer classes.
Where there are no soft labels `teacher_logits` is None.

`get_loss` binds the hyperparameters of a loss chosen by name, or of any other
function of that form: its keyword arguments are its hyperparameters.

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
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gift_jax import labels as labels_lib

Loss = Callable[[jax.Array, jax.Array | None, jax.Array], jax.Array]

LOSSES: dict[str, Callable[..., jax.Array]] = {}


def _loss(
    *static: str, reads_soft_labels: bool = True
) -> Callable[[Callable[..., jax.Array]], Callable]:
    """Registers a loss under its name, with its inputs checked and in float32."""

    def register(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        @functools.wraps(function)
        def loss(
            student_logits: jax.Array,
            teacher_logits: jax.Array | None,
            labels: jax.Array,
            **hyper: float | str | bool,
        ) -> jax.Array:
            if teacher_logits is None and reads_soft_labels:
                raise ValueError(
                    f"loss {function.__name__!r} needs soft labels and got none"
                )
            return _in_float32(
                function, student_logits, teacher_logits, labels, **hyper
            )

        LOSSES[function.__name__] = jax.jit(loss, static_argnames=static)
        return LOSSES[function.__name__]

    return register


def _in_float32(
    function: Callable[..., jax.Array],
    student_logits: jax.Array,
    teacher_logits: jax.Array | None,
    labels: jax.Array,
    **hyper: Any,
) -> jax.Array:
    _check_shapes(student_logits, teacher_logits, labels)
    if teacher_logits is not None:
        teacher_logits = teacher_logits.astype(jnp.float32)
    return function(student_logits.astype(jnp.float32), teacher_logits, labels, **hyper)


def _check_shapes(
    student_logits: jax.Array, teacher_logits: jax.Array | None, labels: jax.Array
) -> None:
    if teacher_logits is not None and student_logits.shape != teacher_logits.shape:
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

    Hyperparameters:
      gamma: Weight of the hard label in the refinement.
      alpha: Smoothing of the hard label.
      mode: "additive" (official code) or "convex" (paper), see
        `gift_jax.labels.refine_labels`.
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

    This is `gift` without the refinement (gamma = 0). The value lies in [0, 2].
    """
    del labels
    return _cosine_distance(student_logits, teacher_logits)


@_loss(reads_soft_labels=False)
def ce(
    student_logits: jax.Array, teacher_logits: jax.Array | None, labels: jax.Array
) -> jax.Array:
    """Cross-entropy with the hard labels; the teacher is unused.

    A label outside of [0, C) cannot be refused inside a traced function, and its
    value means nothing.
    """
    del teacher_logits
    return optax.softmax_cross_entropy_with_integer_labels(student_logits, labels)


@_loss()
def soft_ce(
    student_logits: jax.Array, teacher_logits: jax.Array, labels: jax.Array
) -> jax.Array:
    """Cross-entropy with the teacher's softmax, temperature 1 on both sides."""
    del labels
    return optax.softmax_cross_entropy(student_logits, jax.nn.softmax(teacher_logits))


@_loss("t_squared", "refine", "mode")
def kl(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    labels: jax.Array,
    *,
    temperature: float = 20.0,
    t_squared: bool = False,
    refine: bool = False,
    gamma: float = 0.1,
    alpha: float = 0.1,
    mode: str = "additive",
) -> jax.Array:
    """Kullback-Leibler divergence from teacher to student, both softened.

        sum softmax(t / T) * (log softmax(t / T) - log softmax(s / T))

    Without `t_squared`, as in the official code, the gradient is 1 / T^2 (400
    times at T = 20) smaller than in Hinton et al., https://arxiv.org/abs/1503.02531:
    Adam-like optimizers hide that, SGD at its usual learning rate does not.

    Hyperparameters:
      temperature: T.
      t_squared: Multiply by T^2.
      refine: The teacher's logits are refined as those of `gift` are, and brought
        back to their length: GIFT's first step without its second, for ablations.
      gamma: Of the refinement, as in `gift`.
      alpha: Of the refinement.
      mode: Of the refinement.
    """
    if refine:
        length = jnp.linalg.norm(teacher_logits, axis=-1, keepdims=True)
        refined = labels_lib.refine_labels(
            teacher_logits, labels, gamma=gamma, alpha=alpha, mode=mode
        )
        teacher_logits = length * labels_lib.unit_length(refined)
    log_student = jax.nn.log_softmax(student_logits / temperature)
    log_teacher = jax.nn.log_softmax(teacher_logits / temperature)
    divergence = optax.losses.kl_divergence_with_log_targets(log_student, log_teacher)
    return divergence * temperature**2 if t_squared else divergence


@_loss()
def mse(
    student_logits: jax.Array, teacher_logits: jax.Array, labels: jax.Array
) -> jax.Array:
    """Mean squared difference of the logits over the classes."""
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

    Hyperparameters:
      ce_weight: Weight of the cross-entropy with the hard labels.
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

    Hyperparameters:
      ce_weight: Weight of the cross-entropy with the hard labels.
    """
    hard = ce(student_logits, teacher_logits, labels)
    return soft_ce(student_logits, teacher_logits, labels) + ce_weight * hard


LOSS_NAMES = tuple(LOSSES)


def _function(loss: str | Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    if callable(loss):
        return loss
    if loss not in LOSSES:
        # Not registry.unknown_name, so that this file is copied with labels.py alone.
        near = difflib.get_close_matches(loss, LOSS_NAMES, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(
            f"unknown loss {loss!r}{hint}; known losses: {', '.join(LOSS_NAMES)}"
        )
    return LOSSES[loss]


def hyperparameters(loss: str | Callable[..., jax.Array]) -> dict[str, Any]:
    """The hyperparameters of a loss, with their defaults.

    Args:
      loss: One of `LOSS_NAMES`, or any function: its hyperparameters are the
        arguments that have a default.

    Raises:
      ValueError: an unknown name, or a keyword argument without a default.

    >>> hyperparameters("mse_ce")
    {'ce_weight': 0.1}
    """
    function = _function(loss)
    defaults = {}
    for p in inspect.signature(function).parameters.values():
        if p.default is not p.empty:
            defaults[p.name] = p.default
        elif p.kind == p.KEYWORD_ONLY:
            raise ValueError(
                f"hyperparameter {p.name!r} of loss {_name(function)!r} has no default"
            )
    return defaults


def get_loss(loss: str | Callable[..., jax.Array], **hyper: Any) -> Loss:
    """A loss with its hyperparameters bound.

    Args:
      loss: One of `LOSS_NAMES`, or any function of the form that is described above.
        It is given logits in float32.
      **hyper: Hyperparameters of that loss; those left out keep their default.

    Returns:
      `loss(student_logits, teacher_logits, labels)` -> (B,) float32.

    Raises:
      ValueError: an unknown name, a hyperparameter the loss does not have, a value
        that it does not know, or a function that is no such loss.

    >>> loss = get_loss("gift", gamma=0.0)
    >>> loss(jnp.eye(2), 3 * jnp.eye(2), jnp.array([0, 1]))
    Array([0., 0.], dtype=float32)
    """
    function = _function(loss)
    name, known = _name(function), hyperparameters(function)
    unknown = sorted(set(hyper) - set(known))
    if unknown:
        raise ValueError(
            f"loss {name!r} has no hyperparameter {unknown[0]!r}; "
            f"it has {', '.join(known) or 'none'}"
        )
    for option, value in hyper.items():
        _check_value(f"{option} of loss {name!r}", value, known[option])
    own = LOSSES.get(name) is function
    if not own:
        function = functools.partial(_in_float32, function)
    bound = functools.partial(function, **hyper)
    # Traced once, so that a bad value is an error here and not in the first step.
    logits = jax.ShapeDtypeStruct((3, 2), jnp.float32)
    try:
        if own:
            _check_own(known | hyper, known)
        result = jax.eval_shape(
            bound, logits, logits, jax.ShapeDtypeStruct((3,), jnp.int32)
        )
    except Exception as error:
        raise ValueError(f"loss {name!r}: {error}") from error
    shape, dtype = getattr(result, "shape", None), getattr(result, "dtype", object)
    if shape != (3,) or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"loss {name!r} gives {result} for 3 examples, expected one float for each"
        )
    return bound


def _name(function: Callable[..., jax.Array]) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _check_value(what: str, value: Any, default: Any) -> None:
    """Refuses a value that is not of the default's type, or no number."""
    kinds = (int, float) if isinstance(default, float) else type(default)
    is_bool = isinstance(value, bool)
    if default is not None and (
        not isinstance(value, kinds) or is_bool != isinstance(default, bool)
    ):
        kind = type(default).__name__
        raise ValueError(f"{what} is {value!r}, expected a value of type {kind}")
    if isinstance(value, float) and math.isnan(value):
        raise ValueError(f"{what} is {value}, expected a number")


def _check_own(hyper: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Refuses values that the losses here have no meaning for."""
    for option, least in (("temperature", 1e-3), ("ce_weight", 0.0)):
        if option in hyper and not least <= hyper[option] < math.inf:
            raise ValueError(
                f"{option} is {hyper[option]}, expected a finite value of at least "
                f"{least}"
            )
    if "gamma" in hyper:
        refinement = {k: hyper[k] for k in ("gamma", "alpha", "mode")}
        labels_lib.check_refinement(**refinement)
        if not hyper.get("refine", True) and not refinement.items() <= defaults.items():
            raise ValueError(
                f"{', '.join(refinement)} belong to the refinement: set refine=True, "
                "or leave them out"
            )
