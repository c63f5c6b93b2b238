"""The parts of a loss are those of the losses that they are taken from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.loss_parts import parts
from gift_jax import losses

RNG = np.random.default_rng(0)
STUDENT = jnp.asarray(RNG.normal(size=(6, 10)), jnp.float32)
TEACHER = jnp.asarray(5 * RNG.normal(size=(6, 10)) + 1, jnp.float32)
LABELS = jnp.arange(6) % 10


def with_gradient(loss, student=STUDENT, **options):
    def total(student):
        return loss(student, TEACHER, LABELS, **options).sum()

    return loss(student, TEACHER, LABELS, **options), jax.grad(total)(student)


def centred(rows):
    return np.asarray(rows - rows.mean(-1, keepdims=True), np.float64)


def lengths(rows):
    return np.linalg.norm(rows, axis=-1)


@pytest.mark.parametrize(
    ("options", "loss", "of_loss"),
    [
        ({}, "standardized_gift", {"length_weight": 0.0}),
        (
            {"gamma": 0.5, "temperature": 1.0, "correct": True},
            "standardized_gift",
            {"gamma": 0.5, "temperature": 1.0, "correct": True, "length_weight": 0.0},
        ),
        (
            {
                "length": "both",
                "length_weight": 1.0,
                "rule": "reached",
                "share": 0.5,
            },
            "standardized_gift",
            {},
        ),
        ({"centre": False, "cosine": True, "factor": "none"}, "gift", {}),
    ],
)
def test_they_make_up_the_losses(options, loss, of_loss):
    expected = losses.get_loss(loss, **of_loss)
    for ours, theirs in zip(
        with_gradient(parts, **options), with_gradient(expected), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-5)


def test_the_factor_multiplies_the_value_and_the_gradient():
    value, gradient = with_gradient(parts, factor="none")
    expected = {
        "length": lengths(centred(STUDENT)),
        "mean": np.full(6, lengths(centred(STUDENT)).mean()),
        "teacher": lengths(centred(TEACHER)),
    }
    for factor, by in expected.items():
        found, of_found = with_gradient(parts, factor=factor)
        np.testing.assert_allclose(found, by * value, rtol=1e-5)
        np.testing.assert_allclose(of_found, by[:, None] * gradient, atol=1e-5)


def test_in_units_of_the_teacher_it_is_kl_at_the_teachers_spread():
    # Of logits over the teacher's spread: no z-scores, so the length counts.
    found, of_found = with_gradient(parts, gamma=0.0, unit="teacher", factor="none")

    def hinton(student):
        temperatures = 2 * jnp.std(TEACHER, axis=-1)
        rows = [
            losses.kl(
                *(x[n : n + 1] for x in (student, TEACHER, LABELS)), temperature=t
            )
            for n, t in enumerate(temperatures)
        ]
        return 4 * jnp.concatenate(rows)

    np.testing.assert_allclose(found, hinton(STUDENT), rtol=1e-4)
    gradient = jax.grad(lambda student: hinton(student).sum())(STUDENT)
    np.testing.assert_allclose(of_found, gradient, atol=1e-5)


def length_term(student=STUDENT, **options):
    """Value and gradient of the second term alone."""
    whole = with_gradient(parts, student, length_weight=1.0, **options)
    alone = with_gradient(parts, student)
    return [np.asarray(a - b) for a, b in zip(whole, alone, strict=True)]


def test_a_radial_term_moves_the_length_only():
    _, gradient = length_term(length="radial")
    unit = centred(STUDENT) / lengths(centred(STUDENT))[:, None]
    along = (gradient * unit).sum(-1)
    np.testing.assert_allclose(gradient, along[:, None] * unit, atol=1e-5)
    _, of_both = length_term(length="both")
    np.testing.assert_allclose(along, (of_both * unit).sum(-1), atol=1e-5)


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_a_level_term_changes_the_length_no_more_than_the_direction(share):
    student = STUDENT + 0.2 * TEACHER
    _, of_both = length_term(student, length="both", share=share)
    unit = centred(student) / lengths(centred(student))[:, None]
    radial = (of_both * unit).sum(-1)[:, None] * unit
    tangential = of_both - radial
    allowed = np.minimum(lengths(tangential) / lengths(radial), 1)
    _, found = length_term(student, length="level", share=share)
    expected = tangential + allowed[:, None] * radial
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (allowed < 0.9).any()


def test_relative_lengths_do_not_depend_on_the_teachers_scale():
    def term(scale):
        loss = parts(STUDENT, scale * TEACHER, LABELS, length="relative")
        return loss - parts(STUDENT, scale * TEACHER, LABELS)

    np.testing.assert_allclose(term(1.0), term(7.0), rtol=1e-4, atol=1e-6)
    _, gradient = length_term(length="relative")
    unit = centred(STUDENT) / lengths(centred(STUDENT))[:, None]
    np.testing.assert_allclose(
        gradient, (gradient * unit).sum(-1)[:, None] * unit, atol=1e-5
    )


def test_a_matched_gradient_is_as_long_as_the_sine_of_the_angle():
    _, gradient = length_term(length="both", rule="matched")
    refined = losses.labels_lib.refine_labels(jnp.asarray(centred(TEACHER)), LABELS)
    ours, target = centred(STUDENT), centred(refined)
    cosine = (ours * target).sum(-1) / lengths(ours) / lengths(target)
    np.testing.assert_allclose(lengths(gradient), np.sqrt(1 - cosine**2), rtol=1e-4)


@pytest.mark.parametrize(
    ("rule", "weights"),
    [("linear", (0, 0.5, 1)), ("late", (0, 0.5, 1)), ("early", (1, 0.5, 0))],
)
def test_a_weight_may_follow_the_epoch(rule, weights):
    one, _ = length_term(length="both")
    for progress, weight in zip((0.0, 0.5, 1.0), weights, strict=True):
        found, _ = length_term(length="both", rule=rule, progress=progress)
        np.testing.assert_allclose(found, weight * one, atol=1e-5)
    third, _ = length_term(length="both", rule=rule, progress=1 / 3)
    expected = {"linear": 1 / 3, "late": 0, "early": 2 / 3}[rule]
    np.testing.assert_allclose(third, expected * one, atol=1e-5)


def test_the_angles_rule_is_the_fourth_power_of_the_cosine():
    value, gradient = length_term(length="both")
    found, of_found = length_term(length="both", rule="angle")
    ratio = found / value
    np.testing.assert_allclose(of_found, ratio[:, None] * gradient, atol=1e-5)
    refined = losses.labels_lib.refine_labels(jnp.asarray(centred(TEACHER)), LABELS)
    refined = centred(refined)
    cosine = (centred(STUDENT) * refined).sum(-1)
    cosine /= lengths(centred(STUDENT)) * lengths(refined)
    np.testing.assert_allclose(ratio, np.maximum(cosine, 0) ** 4, atol=1e-4)


def test_the_rule_of_the_length_reached_has_a_power():
    value, _ = length_term(length="both")
    share = np.minimum(lengths(centred(STUDENT)) / lengths(centred(TEACHER)), 1)
    for power in (1.0, 2.0):
        found, _ = length_term(length="both", rule="reached", power=power)
        np.testing.assert_allclose(found, share**power * value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("goal", "error"), [("angle", lambda cosine: cosine), ("sine", lambda cosine: 1.0)]
)
@pytest.mark.parametrize("noise", [0.1, 1.0])
def test_an_angle_allows_the_length_at_which_the_error_has_a_deviation(
    noise, goal, error
):
    student = TEACHER + noise * STUDENT
    options = {"length": "both", "length_weight": 1.0, "goal": goal, "gamma": 0.0}
    options |= {"rule": "reached", "power": 0.0}

    def term(student):
        whole = parts(student, TEACHER, LABELS, **options)
        return (whole - parts(student, TEACHER, LABELS, gamma=0.0)).sum()

    ours, theirs = centred(student), centred(TEACHER)
    target = theirs / lengths(theirs)[:, None]
    cosine = ((ours * target).sum(-1) / lengths(ours)).mean()
    goal = 10**0.5 * error(cosine) / np.sqrt(1 - cosine**2)
    goal = (goal * lengths(theirs) / lengths(theirs).mean())[:, None]
    longer = np.maximum(goal, lengths(ours)[:, None])
    expected = (ours - goal * target) / longer
    np.testing.assert_allclose(jax.grad(term)(student), expected, atol=1e-3)


def test_a_common_goal_has_no_proportions_of_the_teachers():
    uneven = TEACHER * jnp.linspace(0.5, 3, 6)[:, None]
    goal = {"length": "both", "rule": "reached", "power": 0.0, "factor": "none"}
    student = TEACHER + STUDENT
    common, common_of_even = (
        parts(student, teacher, LABELS, **goal, goal="common", gamma=0.0)
        for teacher in (uneven, TEACHER)
    )
    np.testing.assert_allclose(common, common_of_even, rtol=1e-4)
    proportional = parts(student, uneven, LABELS, **goal, goal="angle", gamma=0.0)
    assert np.abs(proportional - common).max() > 0.1


def test_a_share_of_the_teachers_length_is_that_of_a_shorter_teacher():
    options = {"length": "both", "rule": "reached", "factor": "none"}
    found = parts(STUDENT, TEACHER, LABELS, **options, share=0.25)
    shorter = parts(STUDENT, 0.25 * TEACHER, LABELS, **options)
    np.testing.assert_allclose(found, shorter, rtol=1e-4, atol=1e-6)
