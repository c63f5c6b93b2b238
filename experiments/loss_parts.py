"""Which parts of `standardized_gift` do what, and what its length's weight may follow.

    python -m experiments.loss_parts --config=configs/digits.py --workdir=DIR

`parts` is the loss with every part of it exchangeable, by default its first term alone,
and is named like any loss of the user's own:
`--config.loss.name=gift_jax.experiments.loss_parts:parts-temperature=8.0`. KL
multiplied by T^2, which has no unit length and no refinement, stands beside it.
docs/theory.md has what came of it.
"""

import jax
import jax.numpy as jnp
import ml_collections

from gift_jax import labels as labels_lib
from gift_jax import losses, main

_PARTS = "gift_jax.experiments.loss_parts:parts"
_OF_THE_ANGLE = "-length=both-length_weight=1.0-rule=reached-power=0.0-goal=angle"
VARIANTS = (
    "",
    "-gamma=0.0",
    "-correct=True",
    "-centre=False",
    *(f"-temperature={t}" for t in (0.5, 1.0, 4.0, 8.0)),
    "-cosine=True",
    "-unit=teacher-factor=teacher",
    *(f"-factor={factor}" for factor in ("none", "mean", "teacher")),
    "-length=both",
    "-length=both-length_weight=1.0",
    "-length=both-length_weight=1.0-rule=angle",
    "-length=both-length_weight=1.0-rule=matched",
    *(f"-length=both-length_weight=1.0-rule={r}" for r in ("linear", "late", "early")),
    "-length=both-length_weight=1.0-rule=reached",
    *(f"-length=both-length_weight=1.0-rule=reached-share={s}" for s in (0.3, 0.5)),
    "-correct=True-length=both-length_weight=1.0-rule=reached-share=0.5",
    _OF_THE_ANGLE,
    _OF_THE_ANGLE.replace("angle", "common"),
    _OF_THE_ANGLE.replace("both", "level"),
    _OF_THE_ANGLE.replace("both", "level").replace("angle", "sine"),
    "-length=both-length_weight=1.0-rule=reached-power=1.0",
    "-length=radial",
    "-length=radial-length_weight=1.0",
    "-length=relative-length_weight=1.0",
)
# GIFT, and GIFT with the correction or the factor alone.
GIFT = f"{_PARTS}-centre=False-cosine=True-factor=none"
GIFT_CORRECTED = f"{GIFT}-correct=True"
GIFT_WITH_FACTOR = f"{_PARTS}-centre=False-cosine=True"


def parts(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    labels: jax.Array,
    *,
    gamma: float = 0.1,
    correct: bool = False,
    centre: bool = True,
    temperature: float = 2.0,
    cosine: bool = False,
    unit: str = "own",
    factor: str = "length",
    length: str = "none",
    goal: str = "teacher",
    share: float = 1.0,
    length_weight: float = 0.3,
    rule: str = "constant",
    power: float = 2.0,
    progress: jax.Array | float = 1.0,
) -> jax.Array:
    """`standardized_gift`, whose parts can be exchanged; not for rows of equal logits.

    By default it is its first term; all of it is
    `length="both", length_weight=1.0, rule="reached", share=0.5`.

    Args:
      student_logits: (B, C) float32.
      teacher_logits: (B, C) float32.
      labels: (B,) integer classes.
      gamma: Weight of the hard label in the refinement; 0 refines nothing.
      correct: Whether the hard label's logit is raised to the teacher's largest.
      centre: Whether the mean over the classes is taken off first.
      temperature: Temperature of the divergence of z-scores.
      cosine: Whether to take the limit of large temperatures instead, 1 - cosine.
      unit: What the student's logits are divided by: their "own" length, or that of the
        "teacher", which makes them no z-scores; not for the cosine.
      factor: What the direction's term is multiplied by: the student's "length", its
        "mean" over the batch, that of the "teacher", or "none".
      length: What is taught of the length: "none"; "both" is the second term of
        `standardized_gift`, which pulls along the sphere as well; "level" likewise,
        but across it never more strongly than along it; "radial" across it only;
        "relative" likewise, to the teacher's lengths in units in which they are the
        student's on average over the batch.
      goal: The lengths that are taught: those of the "teacher"; "angle", on average
        sqrt(C) times the cotangent of the angle whose cosine is the mean over the
        batch, in the proportions of the teacher's; "common", the same for all;
        "sine", sqrt(C) over the sine of the angle, in these proportions.
      share: Share of these lengths that is taught.
      length_weight: Weight of that term.
      rule: What the weight follows: "constant"; "angle", times the fourth power of the
        cosine to the target; "matched", so that the term's gradient is never longer
        than the direction's at large T; "reached", times a power of the share of the
        goal that the student has, and in units of the student's length where that is
        longer; or the epoch: "linear" grows from 0 to 1, "late" over the middle
        third, "early" falls from 1 to 0.
      power: Power of "reached".
      progress: See `losses.at_progress`.

    Returns:
      (B,) float32.
    """
    centred = _centred if centre else lambda rows: rows
    student_logits, teacher_logits = map(centred, (student_logits, teacher_logits))
    theirs = jnp.linalg.norm(teacher_logits, axis=-1)
    if correct:
        corrected = labels_lib.correct_labels(teacher_logits, labels)
        teacher_logits = centred(corrected)
    refined = centred(labels_lib.refine_labels(teacher_logits, labels, gamma=gamma))
    student, target = map(labels_lib.unit_length, (student_logits, refined))
    ours = jnp.linalg.norm(student_logits, axis=-1)
    agreement = jnp.sum(student * target, axis=-1)
    factors = {
        "length": ours,
        "mean": jnp.mean(ours),
        "teacher": theirs,
        "none": jnp.ones_like(ours),
    }
    direction = 1 - agreement
    if unit == "teacher":
        student = student_logits / theirs[:, None]
    if not cosine:
        # On unit vectors the temperature of z-scores is T / sqrt(C).
        scaled = temperature / student.shape[-1] ** 0.5
        kl = losses.kl(student, target, labels, temperature=scaled)
        direction = temperature**2 * kl
    direction *= jax.lax.stop_gradient(factors[factor])
    if length == "none":
        return direction
    cosine, sine = _mean_angle(agreement)
    deviation = student.shape[-1] ** 0.5
    proportions = theirs / jnp.mean(theirs)
    goals = {
        "teacher": theirs,
        "angle": deviation * cosine / sine * proportions,
        "common": deviation * cosine / sine * jnp.ones_like(theirs),
        "sine": deviation / sine * proportions,
    }
    wanted = jnp.maximum(share * goals[goal], 1e-6)
    squared, scale = {
        "both": _both(student_logits, target, wanted),
        "level": _level(ours, agreement, wanted),
        "radial": _radial(ours, agreement, wanted),
        "relative": _relative(ours, jnp.maximum(agreement, 0), wanted),
    }[length]
    sine = jnp.sqrt(jnp.maximum(1 - agreement**2, 1e-12))
    reached = ours / wanted
    rules = {
        "constant": jnp.ones_like(ours),
        "angle": jnp.maximum(agreement, 0) ** 4,
        "reached": jnp.minimum(reached, 1) ** power / jnp.maximum(reached, 1),
        "linear": progress,
        "late": jnp.clip(3 * progress - 1, 0, 1),
        "early": 1 - progress,
        "matched": sine / jnp.hypot(reached - agreement, sine),
    }
    weight = length_weight * jax.lax.stop_gradient(rules[rule])
    return direction + weight * squared / (2 * scale)


def _centred(rows: jax.Array) -> jax.Array:
    return rows - jnp.mean(rows, axis=-1, keepdims=True)


def _mean_angle(cosines: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of the angle whose cosine is the mean, at most 90 degrees."""
    cosine = jnp.maximum(jnp.mean(jax.lax.stop_gradient(cosines)), 0)
    return cosine, jnp.sqrt(jnp.maximum(1 - cosine**2, 1e-6))


def _both(
    student_logits: jax.Array, target: jax.Array, length: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """A squared distance, and the length that it is in units of."""
    wanted = length[:, None] * target
    return jnp.sum((student_logits - wanted) ** 2, axis=-1), length


def _level(
    ours: jax.Array, agreement: jax.Array, length: jax.Array
) -> tuple[jax.Array, jax.Array]:
    sine = jnp.sqrt(jnp.maximum(1 - agreement**2, 0))
    off = jnp.maximum(jnp.abs(ours - agreement * length), 1e-6)
    share = jax.lax.stop_gradient(jnp.minimum(length * sine / off, 1))
    across, _ = _radial(ours, agreement, length)
    along = 2 * jax.lax.stop_gradient(ours) * length * (1 - agreement)
    return along + share * across, length


def _radial(
    ours: jax.Array, agreement: jax.Array, length: jax.Array
) -> tuple[jax.Array, jax.Array]:
    wanted = jax.lax.stop_gradient(agreement) * length
    return (ours - wanted) ** 2, length


def _relative(
    ours: jax.Array, agreement: jax.Array, theirs: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`_radial` with the teacher's lengths fitted to the student's by least squares."""
    wanted = agreement * theirs
    scale = jnp.sum(ours * wanted) / (jnp.sum(wanted**2) + 1e-12)
    return _radial(ours, agreement, jax.lax.stop_gradient((scale + 1e-12) * theirs))


def study(config: ml_collections.ConfigDict) -> None:
    """One part at a time, four optimizers, three seeds."""
    config.distilled.name = "rded"
    names = [_PARTS + variant for variant in VARIANTS]
    names += [GIFT, GIFT_CORRECTED, GIFT_WITH_FACTOR]
    config.loss.name = "+".join([*names, "kl-t_squared=True"])
    config.optimizer.name = "sgd+adamw+lion+muon"
    config.train.seeds = (0, 1, 2)


if __name__ == "__main__":
    main.run(study)
