"""The losses that students are trained with on soft labels.

Every loss has the same form,

    loss(student_logits, teacher_logits, labels, **hyper) -> (B,) float32

and returns one value per example; the scalar of the official code is their
mean. Logits are (B, C) float, not softmaxed, and labels (B,) integer classes.
Where there are no soft labels `teacher_logits` is None.

`get_loss` binds the hyperparameters of a loss chosen by name, or of any other
function of that form: its keyword arguments are its hyperparameters. One that has an
argument `progress` is given how much of a training is done (`at_progress`).

The first eight have the definitions, and the defaults of the hyperparameters, of the
official code, `losses_benchmark.py` in https://github.com/LINs-lab/GIFT. GIFT
itself is `gift`; the others are the losses that it is compared with in
Shang, Sun and Lin, ICLR 2025, https://arxiv.org/abs/2405.14736.

`standardized_gift` is this project's. The losses of knowledge distillation after it
have the definition and the defaults of the papers and codes that they name; `jsd`, the
Jensen-Shannon divergence, is textbook.

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
# An argument that is no hyperparameter, but comes from the training.
_PROGRESS = "progress"


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
    values = function(
        student_logits.astype(jnp.float32), teacher_logits, labels, **hyper
    )
    is_float = jnp.issubdtype(getattr(values, "dtype", object), jnp.floating)
    return values.astype(jnp.float32) if is_float else values


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


def _softened_kl(
    student_logits: jax.Array, teacher_logits: jax.Array, temperature: Any
) -> jax.Array:
    return optax.losses.kl_divergence_with_log_targets(
        jax.nn.log_softmax(student_logits / temperature),
        jax.nn.log_softmax(teacher_logits / temperature),
    )


def _cosine_distance(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    # optax.cosine_distance has no finite gradient at a vector of zeros.
    unit_predictions = labels_lib.unit_length(predictions)
    unit_targets = labels_lib.unit_length(targets)
    return 1.0 - jnp.sum(unit_predictions * unit_targets, axis=-1)


def _are_equal(rows: jax.Array) -> jax.Array:
    """(B, 1) bool: whether nothing but rounding is left of the centred rows.

    False for NaN, which propagates into the loss.
    """
    scale = jnp.max(jnp.abs(rows), axis=-1, keepdims=True)
    return jnp.max(jnp.abs(_centred(rows)), axis=-1, keepdims=True) <= 2e-6 * scale


def _centred(rows: jax.Array) -> jax.Array:
    return rows - jnp.mean(rows, axis=-1, keepdims=True)


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

    Other Parameters:
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


@_loss("smoothing", reads_soft_labels=False)
def ce(
    student_logits: jax.Array,
    teacher_logits: jax.Array | None,
    labels: jax.Array,
    *,
    smoothing: float = 0.0,
) -> jax.Array:
    """Cross-entropy with the hard labels; the teacher is unused.

    A label outside of [0, C) cannot be refused inside a traced function, and its loss
    is meaningless.

    Other Parameters:
      smoothing: Share of the label that is spread over all C classes, the right one
        included, as PyTorch's and timm's `label_smoothing` is (that of `gift` leaves
        it out). HALD has 0.8 in its epochs with hard labels.
    """
    del teacher_logits
    hard = optax.softmax_cross_entropy_with_integer_labels(student_logits, labels)
    if not smoothing:
        return hard
    evenly = -jnp.mean(jax.nn.log_softmax(student_logits), axis=-1)
    return (1 - smoothing) * hard + smoothing * evenly


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

    Other Parameters:
      temperature: T.
      t_squared: Multiply by T^2.
      refine: Refine the teacher's logits as in `gift`, and rescale them to their
        length: GIFT's first step without its second, for ablations.
      gamma: Weight of the hard label in the refinement, as in `gift`.
      alpha: Smoothing of the hard label in the refinement.
      mode: Mode of the refinement.
    """
    if refine:
        length = jnp.linalg.norm(teacher_logits, axis=-1, keepdims=True)
        refined = labels_lib.refine_labels(
            teacher_logits, labels, gamma=gamma, alpha=alpha, mode=mode
        )
        teacher_logits = length * labels_lib.unit_length(refined)
    divergence = _softened_kl(student_logits, teacher_logits, temperature)
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

    Other Parameters:
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

    Other Parameters:
      ce_weight: Weight of the cross-entropy with the hard labels.
    """
    hard = ce(student_logits, teacher_logits, labels)
    return soft_ce(student_logits, teacher_logits, labels) + ce_weight * hard


@_loss("mode", "length_weight", "correct")
def standardized_gift(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    labels: jax.Array,
    *,
    temperature: float = 2.0,
    length_weight: float = 1.0,
    length_share: float = 0.5,
    correct: bool = False,
    gamma: float = 0.1,
    alpha: float = 0.1,
    mode: str = "additive",
) -> jax.Array:
    """GIFT on z-scores, with a gradient that does not shrink with C and length.

    With c(x) = x minus its mean over the C classes, u(x) = c(x) / |c(x)|, the z-score
    z(x) = sqrt(C) u(x), r = refine_labels(c(t), y), l = length_share * |c(t)| and sg =
    stop_gradient,

        sg(|c(s)|) * T^2 KL(softmax(z(r) / T) || softmax(z(s) / T))
        + length_weight * sg(w / m) * |c(s) - l u(r)|^2 / 2
        where m = max(|c(s)|, l) and w = (|c(s)| / m)^2

    The first term is `gift` with three changes, each for a reason:

    - centring drops the mean of the logits, which no prediction depends on;
    - the divergence of z-scores tends to 1 - cos(c(s), c(r)) as T grows, so the cosine
      is its limit; a smaller T gives the likely classes more weight than the others,
      and as T falls the term over T sqrt(C) tends to the perceptron's loss,
      max(c(s)) - c(s)[argmax r];
    - the gradient of every function of a direction falls with one over the length of
      the logits, which grows with sqrt(C) and over the training. The factor undoes
      that: the gradient is free of scale and shift of either's logits, orthogonal to
      c(s), at most T sqrt(2 C) long, and tends to the sine of the angle to the target
      as T grows.

    It leaves the length of the student's logits free. The second term teaches a part of
    the teacher's length: it is `kl` times T^2, at large T, in units of the longer one's
    length, so its gradient is at most 2 long. That helps a long training and harms one
    that is too short to come near that length, so its weight is the squared share of it
    that the student has. See docs/theory.md.

    The factors are not differentiated, so the gradient is not that of the value. Two
    classes have no direction to learn, and a student whose logits are all equal has
    none: w is 1 then.

    Other Parameters:
      temperature: T, in standard deviations of the logits.
      length_weight: Weight of the second term; with 0 two classes are refused.
      length_share: Share of the teacher's length that is taught.
      correct: Whether r is made from correct_labels(t, y). It helps with a teacher of
        another kind than the student that is wrong about many of the images, and costs
        a little with others. Not for mixed images, of which a hard label names only a
        part (unless hard labels are mixed as well).
      gamma: Weight of the hard label in the refinement.
      alpha: Smoothing of the hard label.
      mode: Mode of the refinement, see `gift_jax.labels.refine_labels`.
    """
    num_classes = student_logits.shape[-1]
    if num_classes < 3 and not length_weight:
        raise ValueError(
            f"{num_classes} classes have no direction to learn: set length_weight, or "
            "choose another loss"
        )
    teacher = jnp.where(_are_equal(teacher_logits), 0, _centred(teacher_logits))
    wanted = length_share * jnp.linalg.norm(teacher, axis=-1)
    if correct:
        teacher = _centred(labels_lib.correct_labels(teacher, labels))
    refined = labels_lib.refine_labels(
        teacher, labels, gamma=gamma, alpha=alpha, mode=mode
    )
    has_direction = ~_are_equal(student_logits) & (num_classes > 2)
    centred = _centred(student_logits)
    student = labels_lib.unit_length(jnp.where(has_direction, centred, 0))
    target = labels_lib.unit_length(_centred(refined))
    # On unit vectors the temperature of z-scores is T / sqrt(C).
    divergence = _softened_kl(student, target, temperature / num_classes**0.5)
    ours = jnp.linalg.norm(jax.lax.stop_gradient(centred), axis=-1)
    direction = ours * temperature**2 * divergence
    squared = jnp.sum((centred - wanted[:, None] * target) ** 2, axis=-1)
    longer = jnp.maximum(ours, wanted)
    # Where neither has a length there is none to learn.
    longer = jnp.where(longer > 0, longer, jnp.inf)
    share = jnp.where(has_direction[:, 0], (ours / longer) ** 2, 1)
    return direction + length_weight * share * squared / (2 * longer)


# --- Losses of knowledge distillation, to compare with ------------------------------


def _standard_deviation(logits: jax.Array) -> jax.Array:
    """(B, 1), unbiased as `torch.std`; 1e-7, with no gradient, for constant rows."""
    variance = jnp.var(logits, axis=-1, keepdims=True, ddof=1)
    varies = variance > 1e-14
    return jnp.where(varies, jnp.sqrt(jnp.where(varies, variance, 1)), 1e-7)


def _kl_of_z_scores(
    student_logits: jax.Array, teacher_logits: jax.Array, temperature: Any
) -> jax.Array:
    # Softmax is blind to the mean, which is not subtracted.
    return _softened_kl(
        student_logits / _standard_deviation(student_logits),
        teacher_logits / _standard_deviation(teacher_logits),
        temperature,
    )


def _of_other_classes(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Log-softmax over all classes but the label's, where it is zero."""
    others = ~jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    total = jax.nn.logsumexp(logits, axis=-1, where=others, keepdims=True)
    return jnp.where(others, logits - total, 0)


def _correlation(left: jax.Array, right: jax.Array) -> jax.Array:
    """Pearson's correlation of rows, with 1e-8 in the denominator as in DIST."""
    left, right = _centred(left), _centred(right)
    squared = jnp.sum(left**2, axis=-1) * jnp.sum(right**2, axis=-1)
    varies = squared > 0
    length = jnp.where(varies, jnp.sqrt(jnp.where(varies, squared, 1)), 0)
    return jnp.sum(left * right, axis=-1) / (length + 1e-8)


@_loss()
def lskd(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    labels: jax.Array,
    *,
    temperature: float = 2.0,
    kd_weight: float = 9.0,
    ce_weight: float = 0.1,
) -> jax.Array:
    """Logit standardization: T^2 KL of z-scores, plus cross-entropy.

        z(x) = (x - mean(x)) / std(x)
        kd_weight * T^2 KL(softmax(z(t) / T) || softmax(z(s) / T)) + ce_weight * ce

    Sun et al., CVPR 2024, https://arxiv.org/abs/2403.01427; constants of
    https://github.com/sunshangquan/logit-standardization-KD.

    Other Parameters:
      temperature: T.
      kd_weight: Weight of the divergence.
      ce_weight: Weight of the cross-entropy with the hard labels.
    """
    divergence = _kl_of_z_scores(student_logits, teacher_logits, temperature)
    hard = ce(student_logits, teacher_logits, labels)
    return kd_weight * temperature**2 * divergence + ce_weight * hard


@_loss()
def normkd(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    labels: jax.Array,
    *,
    scale: float = 2.0,
    kd_weight: float = 0.9,
    ce_weight: float = 0.1,
) -> jax.Array:
    """NormKD: KL at temperatures that follow the spread of a row, plus cross-entropy.

        T(x) = scale * std(x)
        kd_weight * T(t)^2 KL(softmax(t / T(t)) || softmax(s / T(s))) + ce_weight * ce

    Chi et al., 2023, https://arxiv.org/abs/2308.00520; constants for CIFAR-100 of
    https://github.com/gizi1/NormKD (ImageNet: scale 1, weights 0.5).

    Other Parameters:
      scale: Temperature in standard deviations.
      kd_weight: Weight of the divergence.
      ce_weight: Weight of the cross-entropy with the hard labels.
    """
    spread = _standard_deviation(teacher_logits)
    divergence = _kl_of_z_scores(student_logits, teacher_logits, scale)
    hard = ce(student_logits, teacher_logits, labels)
    return kd_weight * (scale * spread[:, 0]) ** 2 * divergence + ce_weight * hard


@_loss()
def spherical_kd(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    labels: jax.Array,
    *,
    temperature: float = 4.0,
    kd_weight: float = 0.9,
    ce_weight: float = 0.1,
) -> jax.Array:
    """Spherical KD: the student's logits brought to the teacher's spread.

        s' = s * std(t) / std(s)
        kd_weight * T^2 KL(softmax(t / T) || softmax(s' / T)) + ce_weight * ce(s')

    Guo et al., 2020, https://arxiv.org/abs/2010.07485. Their code,
    https://github.com/forjiuzhou/Spherical-Knowledge-Distillation (T 4), divides the
    divergence by the batch size twice, and lets its weight fall from 0.9 to 0.5 and 0.1
    in a training of 100 epochs: this is the paper's formula with the first weight.

    Other Parameters:
      temperature: T.
      kd_weight: Weight of the divergence.
      ce_weight: Weight of the cross-entropy of s' with the hard labels.
    """
    own = _standard_deviation(student_logits)
    # A constant row has no spread to rescale.
    ratio = jnp.where(
        _are_equal(student_logits), 1.0, _standard_deviation(teacher_logits) / own
    )
    rescaled = student_logits * ratio
    divergence = _softened_kl(rescaled, teacher_logits, temperature)
    hard = ce(rescaled, teacher_logits, labels)
    return kd_weight * temperature**2 * divergence + ce_weight * hard


@_loss()
def dkd(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    labels: jax.Array,
    *,
    temperature: float = 4.0,
    target_weight: float = 1.0,
    other_weight: float = 8.0,
    ce_weight: float = 1.0,
    warmup: float = 20 / 240,
    progress: jax.Array | float = 1.0,
) -> jax.Array:
    """Decoupled KD: the label's class against the rest, and the rest among themselves.

        min(progress / warmup, 1)
        * T^2 (target_weight * KL of (label, rest) + other_weight * KL within the rest)
        + ce_weight * ce

    Zhao et al., CVPR 2022, https://arxiv.org/abs/2203.08679; constants of
    https://github.com/megvii-research/mdistiller for CIFAR-100, which trains for 240
    epochs. There the first epoch is number 1; here it is 0, and has no divergence.

    Other Parameters:
      temperature: T.
      target_weight: alpha of the paper.
      other_weight: beta of the paper; 2 to 8, depending on the pair of networks.
      ce_weight: Weight of the cross-entropy with the hard labels.
      warmup: Share of the training over which the divergence's weight grows from zero.
      progress: See `at_progress`.
    """
    student, teacher = student_logits / temperature, teacher_logits / temperature

    def label_and_rest(logits: jax.Array) -> jax.Array:
        at_label = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
        log_p = jax.nn.log_softmax(logits)
        parts = [
            jax.nn.logsumexp(log_p, axis=-1, where=w) for w in (at_label, ~at_label)
        ]
        return jnp.stack(parts, axis=-1)

    kl_of = optax.losses.kl_divergence_with_log_targets
    target = kl_of(label_and_rest(student), label_and_rest(teacher))
    others = kl_of(
        _of_other_classes(student, labels), _of_other_classes(teacher, labels)
    )
    divergence = target_weight * target + other_weight * others
    divergence *= jnp.where(progress < warmup, progress / warmup, 1)
    hard = ce(student_logits, teacher_logits, labels)
    return temperature**2 * divergence + ce_weight * hard


@_loss()
def nkd(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    labels: jax.Array,
    *,
    temperature: float = 1.0,
    other_weight: float = 1.5,
) -> jax.Array:
    """Normalised KD: soft cross-entropy of the label's class and of the other classes.

        - q_y(t) log q_y(s)
        - other_weight * T^2 sum_(c != y) q'_c(t / T) log q'_c(s / T)

    with q = softmax and q' the softmax over the classes that are not the label.
    Yang et al., ICCV 2023, https://arxiv.org/abs/2303.13005; constants for ImageNet-1k
    of https://github.com/yzd-v/cls_KD (CIFAR-100: T 3, weight 3.5; some of its commits
    leave the label among the others).

    Other Parameters:
      temperature: T of the other classes.
      other_weight: gamma of the paper.
    """
    probability = jnp.exp(-ce(teacher_logits, None, labels))
    target = probability * ce(student_logits, None, labels)
    teacher = _of_other_classes(teacher_logits / temperature, labels)
    student = _of_other_classes(student_logits / temperature, labels)
    # At the label both are zero.
    others = -jnp.sum(jnp.exp(teacher) * student, axis=-1)
    return target + other_weight * temperature**2 * others


@_loss()
def wttm(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    labels: jax.Array,
    *,
    exponent: float = 0.2,
    kd_weight: float = 4.0,
    ce_weight: float = 1.0,
) -> jax.Array:
    """Weighted transformed teacher matching: only the teacher is softened.

        p = softmax(t)^exponent;   kd_weight * sum(p) KL(p / sum(p) || softmax(s))
        + ce_weight * ce

    Zheng and Yang, ICLR 2024, https://arxiv.org/abs/2402.11148; constants of the one
    example in https://github.com/zkxufo/TTM, which has CRD's loss beside it.

    Other Parameters:
      exponent: One over the teacher's temperature.
      kd_weight: Weight of the divergence.
      ce_weight: Weight of the cross-entropy with the hard labels.
    """
    log_power = exponent * jax.nn.log_softmax(teacher_logits)
    log_total = jax.nn.logsumexp(log_power, axis=-1, keepdims=True)
    divergence = optax.losses.kl_divergence_with_log_targets(
        jax.nn.log_softmax(student_logits), log_power - log_total
    )
    hard = ce(student_logits, teacher_logits, labels)
    return kd_weight * jnp.exp(log_total[:, 0]) * divergence + ce_weight * hard


@_loss()
def dist(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    labels: jax.Array,
    *,
    temperature: float = 1.0,
    inter_weight: float = 2.0,
    intra_weight: float = 2.0,
    ce_weight: float = 1.0,
) -> jax.Array:
    """DIST: one minus Pearson's correlation of the softmaxes, by rows and by columns.

        T^2 inter_weight * (1 - corr over the classes)
        + T^2 intra_weight * mean over classes of (1 - corr over the examples)
        + ce_weight * ce

    with softmax(x / T). The second term is one value for the batch, given to every
    example. Huang et al., NeurIPS 2022, https://arxiv.org/abs/2205.10536; constants for
    ImageNet-1k of https://github.com/hunto/image_classification_sota (CIFAR-100: T 4).

    Other Parameters:
      temperature: T.
      inter_weight: Weight of the correlation over the classes.
      intra_weight: Weight of the correlation over the examples of a batch.
      ce_weight: Weight of the cross-entropy with the hard labels.
    """
    student, teacher = (
        jax.nn.softmax(logits / temperature)
        for logits in (student_logits, teacher_logits)
    )
    inter = 1 - _correlation(student, teacher)
    intra = 1 - jnp.mean(_correlation(student.T, teacher.T))
    correlations = inter_weight * inter + intra_weight * intra
    hard = ce(student_logits, teacher_logits, labels)
    return temperature**2 * correlations + ce_weight * hard


@_loss()
def jsd(
    student_logits: jax.Array, teacher_logits: jax.Array, labels: jax.Array
) -> jax.Array:
    """Jensen-Shannon divergence of the softmaxes, in [0, log 2]; labels unused."""
    del labels
    student, teacher = (jax.nn.log_softmax(x) for x in (student_logits, teacher_logits))
    middle = jnp.logaddexp(student, teacher) - math.log(2)
    kl_of = optax.losses.kl_divergence_with_log_targets
    return 0.5 * (kl_of(middle, student) + kl_of(middle, teacher))


@_loss()
def poly1(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    labels: jax.Array,
    *,
    epsilon: float = 2.0,
) -> jax.Array:
    """Poly-1: `soft_ce` plus epsilon times one minus the probability of the target.

    Leng et al., ICLR 2022, https://arxiv.org/abs/2204.12511, with soft targets.

    Other Parameters:
      epsilon: Weight of the first polynomial term; 2 is the paper's for ImageNet.
    """
    del labels
    target = jax.nn.softmax(teacher_logits)
    return optax.losses.poly_loss_cross_entropy(student_logits, target, epsilon=epsilon)


LOSS_NAMES = tuple(LOSSES)


@functools.cache
def with_hard_epochs(loss: Loss, hard_loss: Loss) -> Loss:
    """A loss that is replaced by another where there are no soft labels.

    Args:
      loss: Loss with soft labels.
      hard_loss: Loss that takes None for them, such as "ce".

    Returns:
      One object for the same two losses, so that compiled functions are shared.
    """

    def either(
        student_logits: jax.Array,
        teacher_logits: jax.Array | None,
        labels: jax.Array,
        *,
        progress: jax.Array | float = 1.0,
    ) -> jax.Array:
        chosen = hard_loss if teacher_logits is None else loss
        return at_progress(chosen, progress)(student_logits, teacher_logits, labels)

    return either


def at_progress(loss: Loss, progress: jax.Array | float) -> Loss:
    """A loss at some point of a training.

    Args:
      loss: From `get_loss`.
      progress: Fraction of the epochs that are done, a scalar in [0, 1). Only losses
        with an argument of that name see it.
    """
    if _PROGRESS not in inspect.signature(loss).parameters:
        return loss
    bound: Loss = functools.partial(loss, progress=progress)  # type: ignore[call-arg]
    return bound


def _function(loss: str | Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    if callable(loss):
        return loss
    if loss not in LOSSES:
        # Not registry.unknown_name, so that this file needs only labels.py when copied.
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
        if p.name == _PROGRESS:
            continue
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
      `loss(student_logits, teacher_logits, labels)` -> (B,) float32; one object for
      equal arguments, so that trainings with it share compiled functions.

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
    # Scalars of NumPy and JAX are numbers, too.
    hyper = {
        option: value.item() if getattr(value, "ndim", None) == 0 else value
        for option, value in hyper.items()
    }
    for option, value in hyper.items():
        _check_value(f"{option} of loss {name!r}", value, known[option])
    try:
        bound = _shared(function, **hyper)
    except TypeError:  # hyperparameters without a hash, such as arrays
        bound = _bound(function, **hyper)
    # Traced once, so that a bad value is an error here and not in the first step.
    logits = jax.ShapeDtypeStruct((3, 4), jnp.float32)
    try:
        if LOSSES.get(name) is function:
            _check_own(known | hyper, known)
        result = jax.eval_shape(
            at_progress(bound, 0.0),
            *(logits, logits, jax.ShapeDtypeStruct((3,), jnp.int32)),
        )
    except Exception as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"loss {name!r}: {kind}{error}") from error
    shape, dtype = getattr(result, "shape", None), getattr(result, "dtype", object)
    if shape != (3,) or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"loss {name!r} gives {result} for 3 examples, expected one float for each"
        )
    return bound


def _bound(function: Callable[..., jax.Array], **hyper: Any) -> Loss:
    if LOSSES.get(_name(function)) is not function:
        function = functools.wraps(function)(functools.partial(_in_float32, function))
    return functools.partial(function, **hyper)


# Typed, as True is not 1, and 1 is not 1.0.
_shared = functools.lru_cache(maxsize=128, typed=True)(_bound)


def _name(function: Callable[..., jax.Array]) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _check_value(what: str, value: Any, default: Any) -> None:
    """Refuses a value that is not of the default's type, or is NaN."""
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
    """Refuses values that have no meaning for the losses of this module."""
    for option, value in hyper.items():
        if option == "smoothing" and not 0 <= value <= 1:
            raise ValueError(f"smoothing is {value}, expected a share in [0, 1]")
        is_positive = option in ("temperature", "scale", "exponent", "length_share")
        if not is_positive and not option.endswith(("_weight", "epsilon")):
            continue
        least = 1e-3 if is_positive else 0.0
        if not least <= value < math.inf:
            raise ValueError(
                f"{option} is {value}, expected a finite value of at least {least}"
            )
    if "gamma" in hyper:
        refinement = {k: hyper[k] for k in ("gamma", "alpha", "mode")}
        labels_lib.check_refinement(**refinement)
        if not hyper.get("refine", True) and not refinement.items() <= defaults.items():
            raise ValueError(
                f"{', '.join(refinement)} belong to the refinement: set refine=True, "
                "or leave them out"
            )
