"""Tests of `gift_jax.losses` against the official values and closed forms.

`fixtures/losses.npz` holds values and gradients of the official code, with its
names softce and softce_ce. `fixtures/losses_kd.npz` holds those of the codes that
`losses.py` names, on the same logits, written by `fixtures/losses_kd.py`.
"""

import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gift_jax import labels as labels_lib
from gift_jax import losses

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
OFFICIAL_NAMES = {name: name for name in losses.LOSS_NAMES} | {
    "soft_ce": "softce",
    "soft_ce_ce": "softce_ce",
}
OFFICIAL = ("gift", "cosine", "ce", "soft_ce", "kl", "mse", "mse_ce", "soft_ce_ce")
KD = ("lskd", "normkd", "spherical_kd", "dkd", "nkd", "wttm", "dist", "jsd", "poly1")
OURS = "standardized_gift"
SCALE_FREE = ("gift", "cosine")
SHIFT_SEEING = ("gift", "cosine", "mse", "mse_ce")
OF_Z_SCORES = (OURS, "lskd", "normkd", "spherical_kd")  # undefined for constant rows
SHIFT_FREE = tuple(
    name for name in losses.LOSS_NAMES if name not in SHIFT_SEEING + OF_Z_SCORES
)
ROWS, CLASSES = 4, 5

every_loss = pytest.mark.parametrize("name", losses.LOSS_NAMES)

logits_arrays = hnp.arrays(
    np.float32, (ROWS, CLASSES), elements=st.floats(-20, 20, width=32)
).map(jnp.asarray)
class_arrays = hnp.arrays(np.int32, (ROWS,), elements=st.integers(0, CLASSES - 1)).map(
    jnp.asarray
)


def rows_have_direction(logits):
    return bool((np.linalg.norm(logits, axis=-1) > 1e-3).all())


directed_arrays = logits_arrays.filter(rows_have_direction)
quickly = settings(deadline=None, max_examples=30)


@pytest.fixture(scope="module")
def golden():
    arrays = {}
    for file in ("losses.npz", "losses_kd.npz"):
        with np.load(FIXTURES / file) as loaded:
            arrays |= {name: loaded[name] for name in loaded.files}
    return arrays


def batch(rows=ROWS, classes=CLASSES, seed=0, scale=3.0):
    """(student, teacher, labels), the teacher not centred."""
    rng = np.random.default_rng(seed)
    return (
        jnp.asarray(rng.normal(0, scale, (rows, classes)), jnp.float32),
        jnp.asarray(rng.normal(1, scale, (rows, classes)), jnp.float32),
        jnp.asarray(rng.integers(0, classes, rows), jnp.int32),
    )


def value_and_gradient(loss, student, teacher, labels):
    """(B,) values, and (B, C) gradients of every row by itself."""

    def summed(student):
        values = loss(student, teacher, labels)
        return jnp.sum(values), values

    gradients, values = jax.grad(summed, has_aux=True)(student)
    return values, gradients


@jax.jit
def of_every_loss(*inputs):
    """`value_and_gradient` by name: one compilation for all tests of a shape."""
    return {
        name: value_and_gradient(losses.get_loss(name), *inputs)
        for name in losses.LOSS_NAMES
    }


def log_softmax(logits):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def z_scores(logits, ddof=1):
    centred = logits - logits.mean(axis=-1, keepdims=True)
    return centred / logits.std(axis=-1, keepdims=True, ddof=ddof)


def divergence(student, teacher, temperature=1.0):
    """KL of softmax(teacher / T) from softmax(student / T), per row."""
    log_s, log_t = (
        log_softmax(student / temperature),
        log_softmax(teacher / temperature),
    )
    return (np.exp(log_t) * (log_t - log_s)).sum(axis=-1)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def correlation_distance(left, right):
    left, right = (x - x.mean(axis=-1, keepdims=True) for x in (left, right))
    lengths = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
    return 1 - (left * right).sum(axis=-1) / (lengths + 1e-8)


def raised(logits, labels):
    """The logits with the label's as large as the largest."""
    logits = np.array(logits)
    logits[np.arange(len(logits)), labels] = logits.max(axis=-1)
    return logits


def reference(name, student, teacher, labels, factor=None, **hyper):
    """The losses in float64 NumPy, of another's code with the options that it has.

    `factor` is the student's length in `standardized_gift`, which no gradient sees.
    """

    def of(default, option):
        return hyper.get(option, default)

    num_classes = student.shape[-1]
    one_hot = np.eye(num_classes)[labels]
    target = np.exp(log_softmax(teacher))
    ce = -(one_hot * log_softmax(student)).sum(axis=-1)
    soft_ce = -(target * log_softmax(student)).sum(axis=-1)
    mse = ((student - teacher) ** 2).mean(axis=-1)
    soft_teacher, soft_student = log_softmax(teacher / 20), log_softmax(student / 20)

    def cosine_distance(left, right):
        lengths = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
        return 1 - (left * right).sum(axis=-1) / lengths

    smooth = np.where(one_hot, 0.9, 0.1 / (num_classes - 1))

    def refined(teacher):
        return unit(teacher) + 0.1 * unit(smooth)

    spread = teacher.std(axis=-1, keepdims=True, ddof=1)
    rescaled = student * spread / student.std(axis=-1, keepdims=True, ddof=1)
    ce_rescaled = -(one_hot * log_softmax(rescaled)).sum(axis=-1)
    probabilities = np.exp(log_softmax(student))
    at_label = np.arange(len(student)), labels
    rest = ~one_hot.astype(bool)

    def others(logits):
        return logits[rest].reshape(len(logits), -1)

    def two_classes(logits):
        of_others = np.log(np.exp(others(log_softmax(logits))).sum(axis=-1))
        return np.stack([log_softmax(logits)[at_label], of_others], axis=-1)

    ce_weight = of(1.0 if name in ("dkd", "wttm", "dist") else 0.1, "ce_weight")
    kd_weight = of({"lskd": 9.0, "wttm": 4.0}.get(name, 0.9), "kd_weight")
    temperature = of(2.0 if name == "lskd" else 4.0, "temperature")
    binary = divergence(*(two_classes(x / temperature) for x in (student, teacher)))
    power = target ** of(0.2, "exponent")
    middle = (probabilities + target) / 2
    if factor is None:
        factor = np.linalg.norm(centred(student), axis=-1)
    length = 0.5 * np.linalg.norm(centred(teacher), axis=-1)
    direction = unit(centred(refined(centred(teacher))))
    dist_t = of(1.0, "temperature")
    softened = [np.exp(log_softmax(x / dist_t)) for x in (student, teacher)]
    pearson = correlation_distance(*softened)
    columns = correlation_distance(*(x.T for x in softened)).mean()
    return {
        "gift": lambda: cosine_distance(student, refined(teacher)),
        "cosine": lambda: cosine_distance(student, teacher),
        "standardized_gift": lambda: (
            factor
            * 4
            * divergence(
                z_scores(student, 0), z_scores(refined(centred(teacher)), 0), 2
            )
            + (1 if num_classes == 2 else np.minimum(factor / length, 1) ** 2)
            * ((centred(student) - length[:, None] * direction) ** 2).sum(axis=-1)
            / (2 * np.maximum(factor, length))
        ),
        "ce": lambda: ce,
        "soft_ce": lambda: soft_ce,
        "kl": lambda: (np.exp(soft_teacher) * (soft_teacher - soft_student)).sum(
            axis=-1
        ),
        "mse": lambda: mse,
        "mse_ce": lambda: mse + 0.1 * ce,
        "soft_ce_ce": lambda: soft_ce + 0.1 * ce,
        "lskd": lambda: (
            kd_weight
            * temperature**2
            * divergence(z_scores(student), z_scores(teacher), temperature)
            + ce_weight * ce
        ),
        "normkd": lambda: (
            kd_weight
            * (of(2.0, "scale") * spread[:, 0]) ** 2
            * divergence(z_scores(student), z_scores(teacher), of(2.0, "scale"))
            + ce_weight * ce
        ),
        "spherical_kd": lambda: (
            kd_weight * temperature**2 * divergence(rescaled, teacher, temperature)
            + ce_weight * ce_rescaled
        ),
        "dkd": lambda: (
            temperature**2
            * (
                of(1.0, "target_weight") * binary
                + of(8.0, "other_weight")
                * divergence(others(student), others(teacher), temperature)
            )
            + ce_weight * ce
        ),
        "nkd": lambda: (
            target[at_label] * ce
            - of(1.5, "other_weight")
            * of(1.0, "temperature") ** 2
            * (
                np.exp(log_softmax(others(teacher) / of(1.0, "temperature")))
                * log_softmax(others(student) / of(1.0, "temperature"))
            ).sum(axis=-1)
        ),
        "wttm": lambda: (
            kd_weight * power.sum(axis=-1) * divergence(student, np.log(power))
            + ce_weight * ce
        ),
        "dist": lambda: (
            dist_t**2 * of(2.0, "inter_weight") * pearson
            + dist_t**2 * of(2.0, "intra_weight") * columns
            + ce_weight * ce
        ),
        "jsd": lambda: (
            (probabilities * np.log(probabilities / middle)).sum(axis=-1) / 2
            + (target * np.log(target / middle)).sum(axis=-1) / 2
        ),
        "poly1": lambda: (
            soft_ce + of(2.0, "epsilon") * (1 - (target * probabilities).sum(axis=-1))
        ),
    }[name]()


# --- The official code --------------------------------------------------------------


def test_the_losses_are_those_of_the_official_codes_and_one_of_ours():
    assert (*OFFICIAL, OURS, *KD) == losses.LOSS_NAMES


@pytest.mark.parametrize(
    "num_classes", [10, 100, pytest.param(1000, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", OFFICIAL + KD)
def test_value_and_gradient_equal_the_official_ones(golden, name, num_classes):
    student = jnp.asarray(golden[f"student_{num_classes}"])
    teacher = jnp.asarray(golden[f"teacher_{num_classes}"])
    labels = jnp.asarray(golden[f"label_{num_classes}"])
    values, gradients = of_every_loss(student, teacher, labels)[name]
    value, grad = jnp.mean(values), gradients / len(labels)
    official = OFFICIAL_NAMES[name]
    expected = golden[f"loss_{official}_{num_classes}"]
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    if num_classes == 1000 and name in KD:
        return  # its gradients are not in the file
    expected = golden[f"grad_{official}_{num_classes}"]
    error = np.linalg.norm(grad - expected) / np.linalg.norm(expected)
    assert error < 1e-5


# --- Closed forms and finite differences --------------------------------------------


@pytest.mark.parametrize("shape", [(3, 3), (ROWS, CLASSES)])
@every_loss
def test_values_equal_float64_numpy(name, shape):
    student, teacher, labels = batch(*shape)
    actual, _ = of_every_loss(student, teacher, labels)[name]
    expected = reference(
        name, *(np.asarray(a, float) for a in (student, teacher)), labels
    )
    assert actual.shape == (shape[0],)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@every_loss
def test_gradient_equals_float64_finite_differences(name):
    student, teacher, labels = batch()
    _, actual = of_every_loss(student, teacher, labels)[name]
    student, teacher = np.asarray(student, float), np.asarray(teacher, float)
    length = np.linalg.norm(student - student.mean(axis=-1, keepdims=True), axis=-1)
    expected = np.zeros_like(student)
    for row, column in np.ndindex(*student.shape):
        step = np.zeros_like(student)
        step[row, column] = 1e-5
        # Summed, as the rows of "dist" see each other.
        above = reference(name, student + step, teacher, labels, length).sum()
        below = reference(name, student - step, teacher, labels, length).sum()
        expected[row, column] = (above - below) / 2e-5
    error = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
    assert error < 1e-5


def test_equal_losses_are_one_object():
    assert losses.get_loss("gift") is losses.get_loss("gift")
    assert losses.get_loss("gift", gamma=0.2) is losses.get_loss("gift", gamma=0.2)
    assert losses.get_loss("gift", gamma=0.2) is not losses.get_loss("gift")

    def weighted(student_logits, teacher_logits, labels, *, weights=None):
        return (student_logits * weights[None]).sum(-1)

    weights = jnp.arange(4.0)  # which has no hash
    loss = losses.get_loss(weighted, weights=weights)
    assert loss(jnp.ones((1, 4)), None, jnp.zeros(1, int)) == 6.0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lskd", {"temperature": 3.0, "kd_weight": 2.0, "ce_weight": 0.3}),
        ("normkd", {"scale": 3.0, "kd_weight": 0.4, "ce_weight": 0.3}),
        ("spherical_kd", {"temperature": 3.0, "kd_weight": 0.4, "ce_weight": 0.3}),
        (
            "dkd",
            {
                "temperature": 3.0,
                "target_weight": 0.6,
                "other_weight": 2.0,
                "ce_weight": 0.4,
            },
        ),
        ("nkd", {"temperature": 3.0, "other_weight": 0.7}),
        ("wttm", {"exponent": 0.5, "kd_weight": 2.0, "ce_weight": 0.3}),
        (
            "dist",
            {
                "temperature": 4.0,
                "inter_weight": 3.0,
                "intra_weight": 0.5,
                "ce_weight": 0.25,
            },
        ),
        ("poly1", {"epsilon": 0.7}),
    ],
)
def test_hyperparameters_are_used_as_documented(name, options):
    assert options.keys() == losses.hyperparameters(name).keys() - {"warmup"}
    student, teacher, labels = batch()
    actual = losses.get_loss(name, **options)(student, teacher, labels)
    expected = reference(
        name,
        *(np.asarray(a, float) for a in (student, teacher)),
        labels,
        **options,
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def value(name, student, teacher, label, **hyper):
    return losses.get_loss(name, **hyper)(
        jnp.array([student]), jnp.array([teacher]), jnp.array([label])
    )[0]


def test_gift_by_hand():
    options = {"alpha": 0.0}
    # The refined labels are (0, 1.1) and (0.1, 1).
    assert value("gift", [1.0, 1.0], [0.0, 2.0], 1, **options) == pytest.approx(
        1 - 0.5**0.5, rel=1e-6
    )
    assert value("gift", [1.0, 0.0], [0.0, 2.0], 0, **options) == pytest.approx(
        1 - 0.1 / 1.01**0.5, rel=1e-6
    )


def test_cosine_by_hand():
    assert value("cosine", [3.0, 4.0], [4.0, 3.0], 0) == pytest.approx(1 - 24 / 25)
    assert value("cosine", [1.0, 0.0], [-5.0, 0.0], 0) == pytest.approx(2)


def test_cross_entropies_by_hand():
    log_2 = np.log(2)
    assert value("ce", [0.0, 0.0], [9.0, 1.0], 1) == pytest.approx(log_2)
    assert value("ce", [0.0, np.log(3.0)], [0.0, 0.0], 0) == pytest.approx(2 * log_2)
    # The teacher's softmax is (1/4, 3/4), the student's (1/2, 1/2).
    assert value("soft_ce", [7.0, 7.0], [0.0, np.log(3.0)], 0) == pytest.approx(log_2)
    expected = 0.75 * np.log(4 / 3) + 0.25 * np.log(4) + 0.1 * np.log(4 / 3)
    both = [0.0, np.log(3.0)]
    assert value("soft_ce_ce", both, both, 1) == pytest.approx(expected)


def test_kl_by_hand():
    # At T = 20 the teacher's softmax is (1/4, 3/4), the student's (1/2, 1/2).
    teacher = [0.0, 20 * np.log(3.0)]
    expected = 0.25 * np.log(1 / 2) + 0.75 * np.log(3 / 2)
    assert value("kl", [1.0, 1.0], teacher, 0) == pytest.approx(expected, rel=1e-5)


def test_mse_by_hand():
    assert value("mse", [1.0, 2.0, 3.0], [1.0, 0.0, 6.0], 0) == pytest.approx(13 / 3)
    weighted = value("mse_ce", [0.0, 0.0], [2.0, 0.0], 0, ce_weight=0.5)
    assert weighted == pytest.approx(2 + 0.5 * np.log(2))


def test_ce_weight_weighs_the_hard_labels():
    student, teacher, labels = batch()
    hard = losses.get_loss("ce")(student, teacher, labels)
    for name in ("mse", "soft_ce"):
        soft = losses.get_loss(name)(student, teacher, labels)
        actual = losses.get_loss(f"{name}_ce", ce_weight=0.25)(student, teacher, labels)
        np.testing.assert_allclose(actual, soft + 0.25 * hard, rtol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_t_squared_multiplies_kl_by_the_squared_temperature(temperature):
    plain, scaled = (
        functools.partial(losses.kl, temperature=temperature, t_squared=t_squared)
        for t_squared in (False, True)
    )
    for small, large in zip(
        value_and_gradient(plain, *batch()),
        value_and_gradient(scaled, *batch()),
        strict=True,
    ):
        # Relative to the largest: a gradient near zero is the difference of two
        # probabilities, and keeps their rounding.
        np.testing.assert_allclose(
            large, temperature**2 * small, rtol=0, atol=1e-5 * np.abs(large).max()
        )


def test_the_default_kl_is_400_times_smaller_than_that_of_hinton():
    inputs = batch()
    hinton = losses.get_loss("kl", t_squared=True)(*inputs)
    np.testing.assert_allclose(hinton, 400 * losses.kl(*inputs), rtol=1e-6)


def test_temperature_divides_the_logits():
    student, teacher, labels = batch()
    np.testing.assert_allclose(
        losses.kl(student, teacher, labels, temperature=4.0),
        losses.kl(5 * student, 5 * teacher, labels, temperature=20.0),
        rtol=1e-5,
    )


# --- What docs/theory.md says of standardized_gift -----------------------------------


def centred(rows):
    return rows - rows.mean(axis=-1, keepdims=True)


def refined_target(teacher, labels):
    return labels_lib.refine_labels(centred(jnp.asarray(teacher)), labels)


def first_term(*inputs, **hyper):
    """Its values and gradients, and the cosine of the directions c(s) and c(r)."""
    student, teacher, labels = inputs
    loss = losses.get_loss(OURS, length_weight=0.0, **hyper)
    values, gradients = value_and_gradient(loss, *inputs)
    refined = refined_target(teacher, labels)
    cosine = 1 - correlation_distance(*(np.asarray(x) for x in (student, refined)))
    return np.asarray(values), np.asarray(gradients), cosine


@pytest.mark.parametrize("classes", [5, 100])
def test_a_high_temperature_gives_the_centred_cosine_times_the_length(classes):
    inputs = batch(classes=classes)
    values, gradients, cosine = first_term(*inputs, temperature=30.0)
    lengths = np.linalg.norm(centred(np.asarray(inputs[0])), axis=-1)
    np.testing.assert_allclose(values, lengths * (1 - cosine), rtol=0.05)
    sines = np.sqrt(1 - cosine**2)
    np.testing.assert_allclose(np.linalg.norm(gradients, axis=-1), sines, rtol=0.05)


def test_a_low_temperature_gives_the_perceptron_s_loss():
    student, teacher, labels = batch()
    values, *_ = first_term(student, teacher, labels, temperature=0.01)
    target = np.argmax(refined_target(teacher, labels), axis=-1)
    behind = student.max(axis=-1) - student[np.arange(ROWS), target]
    np.testing.assert_allclose(values / 0.01 / CLASSES**0.5, behind, atol=0.05)
    assert behind.max() > 1


@quickly
@given(st.floats(0.125, 64, width=32), st.floats(-16, 16, width=32))
def test_its_gradient_is_free_of_scale_and_shift_of_either(scale, shift):
    student, teacher, labels = batch()
    values, gradients, _ = first_term(student, teacher, labels)
    moved = first_term(scale * student + shift, teacher, labels)[1]
    np.testing.assert_allclose(moved, gradients, atol=3e-4)
    rescaled = first_term(student, scale * teacher + shift, labels)
    np.testing.assert_allclose(rescaled[0], values, rtol=3e-4)
    np.testing.assert_allclose(rescaled[1], gradients, atol=3e-4)


def test_the_gradient_of_gift_sees_the_length_and_the_teacher_s_shift():
    student, teacher, labels = batch()
    _, gradients = value_and_gradient(losses.gift, student, teacher, labels)
    refined = np.asarray(labels_lib.refine_labels(teacher, labels))
    ours_, theirs = (np.linalg.norm(x, axis=-1) for x in (student, refined))
    sines = np.sqrt(1 - ((student * refined).sum(-1) / ours_ / theirs) ** 2)
    lengths = np.linalg.norm(gradients, axis=-1)
    np.testing.assert_allclose(lengths, sines / ours_, rtol=1e-4)
    _, moved = value_and_gradient(losses.gift, student, teacher + 3, labels)
    assert np.abs(moved - gradients).max() > 0.01


@quickly
@given(directed_arrays, logits_arrays, class_arrays, st.floats(0.5, 8))
def test_its_gradient_is_bounded_and_orthogonal(student, teacher, labels, temperature):
    if np.linalg.norm(centred(np.asarray(student)), axis=-1).min() < 1e-3:
        return
    _, gradients, _ = first_term(student, teacher, labels, temperature=temperature)
    lengths = np.linalg.norm(gradients, axis=-1)
    assert (lengths <= temperature * (2 * CLASSES) ** 0.5 + 1e-4).all()
    np.testing.assert_allclose(gradients.sum(axis=-1), 0, atol=1e-4)
    directions = np.asarray(labels_lib.unit_length(centred(jnp.asarray(student))))
    np.testing.assert_allclose((gradients * directions).sum(axis=-1), 0, atol=1e-4)


def test_its_gradient_does_not_shrink_with_classes_or_length():
    # Of logits that are normally distributed; those of a sure teacher give more.
    for classes in (10, 100, 1000):
        inputs = batch(32, classes)
        for scale in (0.1, 1.0, 10.0):
            scaled = (scale * inputs[0], *inputs[1:])
            lengths = np.linalg.norm(first_term(*scaled)[1], axis=-1)
            assert 0.5 < lengths.mean() < 2, (classes, scale)


def second_term(*inputs, **hyper):
    """Its values and gradients, with the whole loss's weight of it."""
    whole, without = (
        value_and_gradient(losses.get_loss(OURS, **hyper, **options), *inputs)
        for options in ({}, {"length_weight": 0.0})
    )
    return [np.asarray(a - b) for a, b in zip(whole, without, strict=True)]


def lengths_of(rows):
    return np.linalg.norm(centred(np.asarray(rows, np.float64)), axis=-1)


def test_with_the_length_a_high_temperature_is_kl_in_units_of_the_teacher():
    # A student as long as its teacher, so that the second term counts in full.
    student, teacher, labels = batch()
    student *= (lengths_of(teacher) / lengths_of(student))[:, None]
    whole = {"gamma": 0.0, "length_share": 1.0}
    _, gradients = second_term(student, teacher, labels, **whole)
    lengths = lengths_of(teacher)[:, None]
    expected = (centred(student) - centred(np.asarray(teacher))) / lengths
    np.testing.assert_allclose(gradients, expected, atol=1e-5)
    hinton = functools.partial(losses.kl, temperature=1000.0, t_squared=True)
    _, of_kl = value_and_gradient(hinton, student, teacher, labels)
    np.testing.assert_allclose(CLASSES * of_kl / lengths, expected, atol=0.02)


def test_the_second_term_s_weight_is_the_square_of_the_length_reached():
    student, teacher, labels = batch()
    teacher = teacher * 30  # longer than every student
    wanted = 0.3 * lengths_of(teacher)[:, None]
    share = (lengths_of(student) / wanted[:, 0]) ** 2
    assert (share < 0.5).all()
    target = unit(centred(refined_target(teacher, labels)))
    away = centred(student) - wanted * target
    values, gradients = second_term(student, teacher, labels, length_share=0.3)
    expected = share[:, None] * away / wanted  # the share is not differentiated
    np.testing.assert_allclose(gradients, expected, atol=1e-5)
    squared = (away**2).sum(-1) / (2 * wanted[:, 0])
    np.testing.assert_allclose(values, share * squared, rtol=1e-3)


def test_the_second_term_of_a_longer_student_is_in_units_of_its_own_length():
    student, teacher, labels = batch()
    teacher = teacher * (lengths_of(student) / lengths_of(teacher) / 2)[:, None]
    target = unit(centred(refined_target(teacher, labels)))
    _, gradients = second_term(student, teacher, labels)
    expected = unit(centred(student)) - target / 4
    np.testing.assert_allclose(gradients, expected, atol=1e-5)


@quickly
@given(directed_arrays, logits_arrays, class_arrays)
def test_the_second_term_s_gradient_is_at_most_two_long(student, teacher, labels):
    _, gradients = second_term(student, teacher, labels)
    assert (np.linalg.norm(gradients, axis=-1) <= 2 + 1e-4).all()


@pytest.mark.parametrize("scale", [1e-10, 0.1])
@pytest.mark.parametrize("classes", [10, 1000])
def test_a_short_teacher_makes_no_long_gradient(classes, scale):
    student, teacher, labels = batch(classes=classes)
    _, gradients = value_and_gradient(
        losses.get_loss(OURS), student, scale * teacher, labels
    )
    lengths = np.linalg.norm(gradients, axis=-1)
    assert 0.5 < lengths.mean() < 2.5


@pytest.mark.parametrize("constant", [0.0, 0.1, -2.3, 7.77])
@pytest.mark.parametrize("classes", [CLASSES, 10, 1000])
def test_equal_logits_have_no_direction_whatever_their_rounding(classes, constant):
    student, teacher, labels = batch(classes=classes)
    flat = jnp.full_like(student, constant)
    _, none, _ = first_term(flat, teacher, labels)
    np.testing.assert_allclose(none, 0, atol=1e-7)
    _, gradients = value_and_gradient(losses.get_loss(OURS), flat, teacher, labels)
    target = centred(refined_target(teacher, labels))
    np.testing.assert_allclose(gradients, -unit(target), atol=1e-6)
    # A teacher that says nothing leaves the hard label, and no length.
    values, *_ = first_term(student, flat, labels)
    hard = labels_lib.smooth_labels(labels, classes)
    expected, *_ = first_term(student, 1e-6 * hard, labels, gamma=1.0)
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    _, gradients = second_term(student, flat, labels)
    np.testing.assert_allclose(gradients, unit(centred(student)), atol=2e-5)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_none_are_not_taken_for_equal_logits(number):
    student, teacher, labels = batch()
    for inputs in (
        (student.at[0, 1].set(number), teacher),
        (student, teacher.at[0, 1].set(number)),
    ):
        values = losses.get_loss(OURS)(*inputs, labels)
        assert np.isnan(values[0])
        assert np.isfinite(values[1:]).all()


def test_the_gradient_of_the_first_term_in_closed_form():
    student, teacher, labels = batch()
    _, gradients, _ = first_term(student, teacher, labels, temperature=1.5)
    refined = refined_target(teacher, labels)
    ours_, theirs = unit(centred(student)), unit(centred(np.asarray(refined)))
    p, q = (jax.nn.softmax(CLASSES**0.5 * u / 1.5, axis=-1) for u in (theirs, ours_))
    pull = 1.5 * CLASSES**0.5 * np.asarray(q - p)
    along = (pull * ours_).sum(-1, keepdims=True)
    np.testing.assert_allclose(gradients, pull - along * ours_, atol=1e-5)


def test_a_teacher_may_be_corrected_where_it_prefers_another_class():
    student, teacher, labels = batch()
    labels = labels.at[: ROWS // 2].set(teacher.argmax(axis=-1)[: ROWS // 2])
    is_right = teacher.argmax(axis=-1) == labels
    assert not is_right.all()
    corrected, as_it_is, of_raised = (
        value_and_gradient(losses.get_loss(OURS, **options), student, logits, labels)
        for options, logits in (
            ({"length_weight": 0.0, "correct": True}, teacher),
            ({"length_weight": 0.0}, teacher),
            ({"length_weight": 0.0}, raised(teacher, labels)),
        )
    )
    for found, without, expected in zip(corrected, as_it_is, of_raised, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found[is_right], without[is_right], rtol=1e-5)
        assert np.abs(found - without)[~is_right].max() > 0.1


def test_a_low_temperature_gives_the_likely_classes_more_weight():
    # Two errors of one size: at the first class, and at the least likely one.
    teacher = np.array([[4.0, 1.0, 0.0, -1.0, -4.0]], np.float32)
    labels = np.array([0])

    def ratio(temperature):
        first, last = (
            first_term(teacher + error, teacher, labels, temperature=temperature)[0]
            for error in np.float32([[-1, 0, 0, 0, 0], [0, 0, 0, 0, 1]])
        )
        return float((first / last)[0])

    assert ratio(0.5) > 2 * ratio(2.0) > 2 * ratio(30.0)


def test_gamma_moves_the_target_to_the_hard_label_which_alpha_spreads():
    student, teacher, labels = batch()
    at_label = np.arange(ROWS), labels

    def pull(**options):
        """How strongly the label's logit is raised, on average."""
        _, gradients, _ = first_term(student, teacher, labels, **options)
        return -float(gradients[at_label].mean())

    assert pull(gamma=0.0) < pull(gamma=0.1) < pull(gamma=1.0) < pull(gamma=10.0)
    assert pull(gamma=1.0, alpha=0.0) > pull(gamma=1.0, alpha=0.5)
    # Spread evenly it has no direction.
    even = pull(gamma=1.0, alpha=1 - 1 / CLASSES)
    assert even == pytest.approx(pull(gamma=0.0), rel=1e-4)


def test_there_may_be_the_classes_of_imagenet_21k():
    inputs = batch(4, 21_000)
    for options in ({}, {"length_weight": 0.0}, {"gamma": 0.0}):
        loss = losses.get_loss(OURS, **options)
        values, gradients = value_and_gradient(loss, *inputs)
        lengths = np.linalg.norm(gradients, axis=-1)
        assert np.isfinite(values).all()
        # The hard label is gamma sqrt(C) standard deviations: 14 of them.
        low, high = (0.3, 3) if options == {"gamma": 0.0} else (5, 40)
        assert (lengths > low).all() and (lengths < high).all(), (options, lengths)


def test_two_classes_need_the_length():
    two = batch(classes=2)
    with pytest.raises(ValueError, match="2 classes have no direction"):
        losses.standardized_gift(*two, length_weight=0.0)
    # Their second term counts in full, however short the student is.
    _, gradients = value_and_gradient(losses.get_loss(OURS), 1e-3 * two[0], *two[1:])
    np.testing.assert_allclose(np.linalg.norm(gradients, axis=-1), 1, rtol=0.01)


# --- Inputs on the edge -------------------------------------------------------------

PLAIN = np.array([1.0, -2.0, 0.5, 3.0, 0.0])
ZEROS, CONSTANT = np.zeros(CLASSES), np.full(CLASSES, 3.0)
HUGE = 1e4 * np.array([1.0, -1.0, 0.0, 1.0, 0.5])
EDGES = {
    "zero student": (ZEROS, PLAIN),
    "zero teacher": (PLAIN, ZEROS),
    "both zero": (ZEROS, ZEROS),
    "constant student": (CONSTANT, PLAIN),
    "constant student, huge teacher": (CONSTANT, HUGE),
    "constant teacher": (PLAIN, CONSTANT),
    "both constant": (CONSTANT, CONSTANT),
    "huge student": (HUGE, PLAIN),
    "huge teacher": (PLAIN, HUGE),
    "both huge": (HUGE, -HUGE),
    "equal": (PLAIN, PLAIN),
    "opposite": (PLAIN, -PLAIN),
    "tiny": (1e-20 * PLAIN, 1e-20 * PLAIN),
}


@every_loss
def test_values_and_gradients_are_finite_on_the_edge(name):
    for edge, (student, teacher) in EDGES.items():
        # Every row with another class.
        values, gradients = of_every_loss(
            jnp.tile(jnp.asarray(student, jnp.float32), (ROWS, 1)),
            jnp.tile(jnp.asarray(teacher, jnp.float32), (ROWS, 1)),
            jnp.arange(ROWS),
        )[name]
        assert np.isfinite(values).all(), edge
        assert np.isfinite(gradients).all(), edge


def test_a_constant_student_has_no_spread_to_rescale():
    student = jnp.full((ROWS, CLASSES), 3.0)
    _, teacher, labels = batch()
    loss = losses.get_loss("spherical_kd")
    weight, temperature = 0.9, 4.0
    uniform, soft = 1 / CLASSES, jax.nn.softmax(teacher / temperature)
    expected = weight * temperature**2 * (soft * jnp.log(soft / uniform)).sum(-1)
    expected += (1 - weight) * np.log(CLASSES)
    values, gradients = value_and_gradient(loss, student, teacher, labels)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    hard = jax.nn.one_hot(labels, CLASSES)
    slope = weight * temperature * (uniform - soft) + (1 - weight) * (uniform - hard)
    np.testing.assert_allclose(gradients, slope, atol=1e-5)


@every_loss
def test_one_example_of_two_classes(name):
    for student in ([0.0, 0.0], [1e4, -1e4], [2.0, 2.0]):
        inputs = jnp.array([student]), jnp.array([[-3.0, 1.0]]), jnp.array([1])
        values, gradients = of_every_loss(*inputs)[name]
        assert values.shape == (1,)
        assert gradients.shape == (1, 2)
        assert np.isfinite(values).all()
        assert np.isfinite(gradients).all()


def test_a_student_of_zeros_is_at_right_angles_to_everything():
    zeros, teacher, labels = jnp.zeros((ROWS, CLASSES)), *batch()[1:]
    for name in SCALE_FREE:
        values, gradients = of_every_loss(zeros, teacher, labels)[name]
        np.testing.assert_array_equal(values, np.ones(ROWS))
        np.testing.assert_array_equal(gradients, zeros)


@pytest.mark.parametrize(
    "dtype", ["float16", pytest.param("bfloat16", marks=pytest.mark.slow)]
)
@every_loss
def test_half_precision_is_computed_in_float32(name, dtype):
    student, teacher, labels = batch()
    student, teacher = student.astype(dtype), teacher.astype(dtype)
    in_float32 = (student.astype(jnp.float32), teacher.astype(jnp.float32), labels)
    values, gradients = of_every_loss(student, teacher, labels)[name]
    expected_values, expected_gradients = of_every_loss(*in_float32)[name]
    assert values.dtype == jnp.float32
    # XLA may fuse the two differently; float16 itself is exact to 5e-4 only.
    np.testing.assert_allclose(values, expected_values, rtol=1e-5)
    assert gradients.dtype == dtype
    np.testing.assert_array_equal(gradients, expected_gradients.astype(dtype))


def test_stored_soft_labels_need_no_teacher():
    # DATM publishes (N, C) float32 arrays; its hard labels are their argmax.
    student, stored, _ = batch()
    stored = np.asarray(stored)
    labels = stored.argmax(axis=1)
    assert isinstance(stored, np.ndarray)
    for name in ("gift", "dist"):
        actual = losses.get_loss(name)(np.asarray(student), stored, labels)
        expected = reference(
            name, np.asarray(student, float), stored.astype(float), labels
        )
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


# --- Transformations ----------------------------------------------------------------


@every_loss
def test_jit_equals_eager(name):
    compiled, _ = of_every_loss(*batch())[name]
    with jax.disable_jit():
        eager = losses.get_loss(name)(*batch())
    np.testing.assert_allclose(compiled, eager, rtol=1e-6, atol=1e-6)


def test_vmap_equals_a_loop():
    inputs = [batch(seed=seed) for seed in range(3)]
    stacked = (jnp.stack(arrays) for arrays in zip(*inputs, strict=True))
    mapped = jax.jit(jax.vmap(of_every_loss))(*stacked)
    for number, one in enumerate(inputs):
        for name, (values, gradients) in of_every_loss(*one).items():
            found = [np.asarray(x)[number] for x in mapped[name]]
            np.testing.assert_allclose(found[0], values, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(found[1], gradients, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in losses.LOSS_NAMES if n != "dist"])
def test_every_example_is_on_its_own(name):
    loss = losses.get_loss(name)
    inputs = batch()
    alone = [loss(*(array[i : i + 1] for array in inputs))[0] for i in range(ROWS)]
    np.testing.assert_allclose(loss(*inputs), alone, rtol=1e-6, atol=1e-6)


@every_loss
def test_permuting_the_classes_changes_nothing(name):
    student, teacher, labels = batch()
    permutation = np.array([2, 0, 3, 4, 1])
    renamed = jnp.asarray(np.argsort(permutation))[labels]
    permuted = (student[:, permutation], teacher[:, permutation], renamed)
    values, gradients = of_every_loss(*permuted)[name]
    expected_values, expected_gradients = of_every_loss(*batch())[name]
    np.testing.assert_allclose(values, expected_values, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        gradients, expected_gradients[:, permutation], rtol=1e-4, atol=1e-6
    )


def test_gamma_may_be_traced():
    inputs = batch()
    gammas = jnp.array([0.0, 0.1, 0.7])
    swept = jax.vmap(lambda gamma: losses.gift(*inputs, gamma=gamma))(gammas)
    loop = np.stack([losses.gift(*inputs, gamma=float(g)) for g in gammas])
    np.testing.assert_allclose(swept, loop, atol=1e-6)


# --- Properties ---------------------------------------------------------------------


@quickly
@given(logits_arrays, logits_arrays, class_arrays, st.floats(0, 2, width=32))
def test_gift_lies_in_0_2(student, teacher, labels, gamma):
    value = losses.gift(student, teacher, labels, gamma=gamma)
    assert (value >= -1e-6).all()
    assert (value <= 2 + 1e-6).all()


@quickly
@given(directed_arrays, logits_arrays, class_arrays, st.floats(0.125, 64, width=32))
def test_cosines_ignore_the_length_of_the_student(student, teacher, labels, scale):
    for name in SCALE_FREE:
        values, gradients = of_every_loss(student, teacher, labels)[name]
        scaled = of_every_loss(scale * student, teacher, labels)[name]
        scaled_values, scaled_gradients = scaled
        np.testing.assert_allclose(scaled_values, values, atol=2e-6)
        # The gradient falls with one over the length.
        lengths = np.linalg.norm(student, axis=-1, keepdims=True)
        np.testing.assert_allclose(
            scale * scaled_gradients * lengths, gradients * lengths, atol=2e-6
        )


@pytest.mark.parametrize(
    "name", sorted({*losses.LOSS_NAMES} - {*SCALE_FREE, "spherical_kd"})
)
def test_the_other_losses_see_the_length_of_the_student(name):
    student, teacher, labels = batch()
    loss = losses.get_loss(name)
    change = loss(2 * student, teacher, labels) - loss(student, teacher, labels)
    assert (jnp.abs(change) > 1e-4).all()


@quickly
@given(directed_arrays, logits_arrays, class_arrays)
def test_the_gradient_of_gift_is_orthogonal_to_the_student(student, teacher, labels):
    _, gradients = of_every_loss(student, teacher, labels)["gift"]
    products = jnp.sum(gradients * student, axis=-1)
    # Both sides are free of the student's scale.
    np.testing.assert_allclose(products, np.zeros(ROWS), atol=2e-6)


@quickly
@given(logits_arrays, logits_arrays, class_arrays, st.floats(-20, 20, width=32))
def test_softmax_losses_ignore_a_constant(student, teacher, labels, constant):
    for name in SHIFT_FREE:
        loss = losses.get_loss(name)
        # A sum may round the logits, which is no doing of the loss.
        for moved in ((constant, 0), (0, constant)):
            shifted = student + moved[0], teacher + moved[1]
            back = shifted[0] - moved[0], shifted[1] - moved[1]
            np.testing.assert_allclose(
                loss(*shifted, labels), loss(*back, labels), rtol=1e-4, atol=2e-5
            )


@pytest.mark.parametrize("name", OF_Z_SCORES)
def test_losses_of_z_scores_ignore_a_constant(name):
    student, teacher, labels = batch()
    values, gradients = of_every_loss(student, teacher, labels)[name]
    moved = of_every_loss(student - 5, teacher + 7, labels)[name]
    np.testing.assert_allclose(moved[0], values, rtol=1e-4)
    np.testing.assert_allclose(moved[1], gradients, atol=1e-4)


@pytest.mark.parametrize("name", SHIFT_SEEING)
def test_the_other_losses_see_a_constant(name):
    student, teacher, labels = batch()
    loss = losses.get_loss(name)
    value = loss(student, teacher, labels)
    for shifted in (
        loss(student + 5, teacher, labels),
        loss(student, teacher + 5, labels),
    ):
        assert (jnp.abs(shifted - value) > 1e-3).all()


@quickly
@given(logits_arrays, directed_arrays, class_arrays, st.floats(0, 4, width=32))
def test_additive_gamma_is_a_convex_weight(student, teacher, labels, gamma):
    additive = losses.gift(student, teacher, labels, gamma=gamma)
    weight = gamma / (1 + gamma)
    convex = losses.gift(student, teacher, labels, gamma=weight, mode="convex")
    # Where soft and hard label all but cancel the direction is lost to rounding.
    refined = losses.labels_lib.refine_labels(teacher, labels, gamma=gamma)
    length = np.linalg.norm(refined, axis=-1)
    error = np.abs(additive - convex)
    assert (error < 4e-6 / np.minimum(length, 1)).all()


def test_the_official_gamma_is_a_convex_weight_of_one_eleventh():
    inputs = batch()
    convex = losses.gift(*inputs, gamma=1 / 11, mode="convex")
    np.testing.assert_allclose(losses.gift(*inputs), convex, atol=1e-6)
    assert (jnp.abs(losses.gift(*inputs, mode="convex") - convex) > 1e-5).any()


@quickly
@given(logits_arrays, logits_arrays, class_arrays)
def test_gift_without_the_hard_label_is_cosine(student, teacher, labels):
    expected = losses.cosine(student, teacher, labels)
    for mode in ("additive", "convex"):
        actual = losses.gift(student, teacher, labels, gamma=0.0, mode=mode)
        np.testing.assert_allclose(actual, expected, atol=1e-6)


@quickly
@given(logits_arrays, logits_arrays, class_arrays)
def test_kl_is_not_negative(student, teacher, labels):
    assert (losses.kl(student, teacher, labels, temperature=1.0) > -1e-5).all()
    assert (losses.kl(student, teacher, labels) > -1e-6).all()


@quickly
@given(logits_arrays, class_arrays, st.integers(0, CLASSES - 1))
def test_kl_is_zero_for_equal_distributions_only(teacher, labels, column):
    for shift in (0, 3):
        kl = losses.kl(teacher + shift, teacher, labels)
        np.testing.assert_allclose(kl, np.zeros(ROWS), atol=1e-6)
    assert (losses.kl(teacher.at[:, column].add(5), teacher, labels) > 1e-3).all()


# --- Names, hyperparameters, errors -------------------------------------------------


def test_hyperparameters_have_the_official_defaults():
    cosine = {"gamma": 0.1, "alpha": 0.1, "mode": "additive"}
    assert {name: losses.hyperparameters(name) for name in losses.LOSS_NAMES} == {
        "gift": cosine,
        "cosine": {},
        "ce": {"smoothing": 0.0},
        "soft_ce": {},
        "kl": {"temperature": 20.0, "t_squared": False, "refine": False, **cosine},
        "mse": {},
        "mse_ce": {"ce_weight": 0.1},
        "soft_ce_ce": {"ce_weight": 0.1},
        OURS: {
            "temperature": 2.0,
            "length_weight": 1.0,
            "length_share": 0.5,
            "correct": False,
            **cosine,
        },
        "lskd": {"temperature": 2.0, "kd_weight": 9.0, "ce_weight": 0.1},
        "normkd": {"scale": 2.0, "kd_weight": 0.9, "ce_weight": 0.1},
        "spherical_kd": {"temperature": 4.0, "kd_weight": 0.9, "ce_weight": 0.1},
        "dkd": {
            "temperature": 4.0,
            "target_weight": 1.0,
            "other_weight": 8.0,
            "ce_weight": 1.0,
            "warmup": 20 / 240,
        },
        "nkd": {"temperature": 1.0, "other_weight": 1.5},
        "wttm": {"exponent": 0.2, "kd_weight": 4.0, "ce_weight": 1.0},
        "dist": {
            "temperature": 1.0,
            "inter_weight": 2.0,
            "intra_weight": 2.0,
            "ce_weight": 1.0,
        },
        "jsd": {},
        "poly1": {"epsilon": 2.0},
    }


@pytest.mark.parametrize(
    "options", [{}, {"gamma": 0.5}, {"alpha": 0.4}, {"gamma": 0.5, "mode": "convex"}]
)
def test_kl_on_refined_labels_is_kl_on_gift_s_labels_at_the_teacher_s_length(options):
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 6, 10)).astype(np.float32) * 4
    hard = np.arange(6)
    refined = labels_lib.refine_labels(jnp.asarray(teacher), hard, **options)
    refined = np.asarray(refined)
    lengths = [np.linalg.norm(a, axis=1, keepdims=True) for a in (teacher, refined)]
    refined = refined * lengths[0] / lengths[1]
    np.testing.assert_allclose(
        losses.get_loss("kl", refine=True, **options)(student, teacher, hard),
        losses.get_loss("kl")(student, refined, hard),
        rtol=1e-4,
        atol=1e-7,
    )
    zeros = np.zeros((1, 10), np.float32)
    gradient = jax.grad(
        lambda s: losses.get_loss("kl", refine=True)(s, zeros, hard[:1]).sum()
    )(student[:1])
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("call", [losses.get_loss, losses.hyperparameters])
def test_an_unknown_loss_is_refused_with_the_nearest_name(call):
    with pytest.raises(ValueError, match=r"'softce' \(did you mean 'soft_ce'\?\)"):
        call("softce")
    with pytest.raises(ValueError, match=r"unknown loss 'zzz'; .* gift, cosine, ce"):
        call("zzz")


@pytest.mark.parametrize("scalar", [np.float32, np.float64, jnp.float32, np.int64])
def test_scalars_of_arrays_are_numbers(scalar):
    inputs = batch()
    expected = losses.get_loss("gift", gamma=2.0)(*inputs)
    found = losses.get_loss("gift", gamma=scalar(2))(*inputs)
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="gamma of loss 'gift' is array"):
        losses.get_loss("gift", gamma=np.array([1.0, 2.0]))


def test_an_unknown_hyperparameter_is_refused():
    with pytest.raises(
        ValueError, match=r"'gift' has no .* 'temperature'; it has gamma"
    ):
        losses.get_loss("gift", temperature=4.0)
    with pytest.raises(ValueError, match=r"'mse' has no .* 'gamma'; it has none"):
        losses.get_loss("mse", gamma=0.1)


def test_an_unknown_refinement_mode_is_refused_before_the_first_step():
    with pytest.raises(ValueError, match=r"refinement mode 'paper', expected one of"):
        losses.get_loss("gift", mode="paper")


@pytest.mark.parametrize("name", ["ce", "gift", "dist"])
def test_shapes_that_do_not_belong_together_are_refused(name):
    student, teacher, labels = batch()
    loss = losses.get_loss(name)
    with pytest.raises(ValueError, match=r"\(4, 5\) and teacher logits \(4, 4\)"):
        loss(student, teacher[:, :4], labels)
    with pytest.raises(ValueError, match=r"\(4, 5\) and teacher logits \(1, 5\)"):
        loss(student, teacher[:1], labels)
    with pytest.raises(ValueError, match=r"labels of shape \(4,\), got \(4, 1\)"):
        loss(student, teacher, labels[:, None])
    with pytest.raises(ValueError, match=r"labels of shape \(4,\), got \(4, 5\)"):
        loss(student, teacher, teacher)


@pytest.mark.parametrize("name", ["ce", "gift", "dist"])
def test_float_labels_are_refused(name):
    student, teacher, labels = batch()
    with pytest.raises(TypeError, match="must be integers, got dtype float32"):
        losses.get_loss(name)(student, teacher, labels.astype(jnp.float32))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("kl", {"temperature": 0.0}, "temperature is 0.0"),
        ("kl", {"temperature": np.inf}, "temperature is inf"),
        ("kl", {"temperature": np.nan}, "temperature of loss 'kl' is nan"),
        ("kl", {"temperature": "4"}, "temperature of .* is '4', .* type float"),
        ("kl", {"temperature": True}, "temperature of .* is True, .* type float"),
        ("kl", {"refine": 1}, "refine of .* is 1, .* type bool"),
        ("gift", {"alpha": 1.5}, "alpha is 1.5"),
        ("gift", {"gamma": -0.1}, "gamma is -0.1"),
        ("gift", {"gamma": np.inf}, "gamma is inf"),
        ("gift", {"gamma": np.nan}, "gamma of loss 'gift' is nan"),
        ("gift", {"gamma": 1.5, "mode": "convex"}, r"gamma is 1.5, .*\[0, 1\].*convex"),
        ("kl", {"refine": True, "gamma": 2, "mode": "convex"}, "gamma is 2"),
        ("kl", {"gamma": 0.2}, "gamma, alpha, mode belong .* set refine=True"),
        ("kl", {"mode": "convex"}, "set refine=True"),
        ("mse_ce", {"ce_weight": -1.0}, "ce_weight is -1.0"),
        (OURS, {"length_share": 0.0}, "length_share is 0.0"),
    ],
)
def test_nonsense_is_refused_before_the_first_step(name, options, message):
    with pytest.raises(ValueError, match=f"loss {name!r}") as refused:
        losses.get_loss(name, **options)
    assert re.search(message, str(refused.value))


def test_what_has_a_meaning_is_not_refused():
    losses.get_loss("gift", gamma=1.5)
    losses.get_loss("gift", gamma=1, mode="convex")
    losses.get_loss("kl", gamma=0.1, alpha=0.1, mode="additive")
    losses.get_loss("kl", refine=True, gamma=0.2, mode="convex")


# --- Without soft labels ------------------------------------------------------------


def test_cross_entropy_with_hard_labels_needs_no_soft_labels():
    student, teacher, labels = batch()
    loss = losses.get_loss("ce")
    for ours, theirs in zip(
        value_and_gradient(loss, student, None, labels),
        value_and_gradient(loss, student, teacher, labels),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match=r"labels of shape \(4,\), got \(3,\)"):
        loss(student, None, labels[:3])


@pytest.mark.parametrize("smoothing", [0.1, 0.8, 1.0])
def test_smoothing_is_that_of_pytorch_and_timm(smoothing):
    student, _, labels = batch()
    classes = student.shape[1]
    # timm's one_hot: the off value is smoothing / C, the on value 1 - smoothing more.
    target = np.full(student.shape, smoothing / classes)
    target[np.arange(len(labels)), labels] += 1 - smoothing
    log_p = np.asarray(jax.nn.log_softmax(student.astype(jnp.float32)))
    found = losses.get_loss("ce", smoothing=smoothing)(student, None, labels)
    np.testing.assert_allclose(found, -(target * log_p).sum(1), rtol=1e-5)


def test_a_loss_with_hard_epochs_is_either():
    student, teacher, labels = batch()
    hard, gift = losses.get_loss("ce", smoothing=0.8), losses.get_loss("gift")
    either = losses.with_hard_epochs(gift, hard)
    assert either is losses.with_hard_epochs(gift, hard)
    np.testing.assert_array_equal(
        either(student, teacher, labels), gift(student, teacher, labels)
    )
    np.testing.assert_array_equal(
        either(student, None, labels), hard(student, None, labels)
    )


def by_progress(student, teacher, labels, *, power=1.0, progress):
    return student[:, 0] + progress**power


def test_progress_is_the_training_s_and_no_hyperparameter():
    assert losses.hyperparameters(by_progress) == {"power": 1.0}
    assert "progress" not in losses.hyperparameters(OURS)
    inputs = batch()
    loss = losses.get_loss(by_progress, power=2.0)
    with_hard = losses.with_hard_epochs(loss, losses.get_loss("ce"))
    for one in (loss, with_hard):
        found = losses.at_progress(one, 0.5)(*inputs)
        np.testing.assert_allclose(found, inputs[0][:, 0] + 0.25, rtol=1e-6)
    gift = losses.get_loss("gift")
    assert losses.at_progress(gift, 0.5) is gift


def test_the_divergence_of_dkd_is_warmed_up():
    inputs = batch()
    hard = losses.ce(*inputs)
    whole = losses.get_loss("dkd")(*inputs) - hard
    for options, progress, share in (
        ({}, 0.0, 0),
        ({}, 1 / 24, 0.5),
        ({}, 0.5, 1),
        ({"warmup": 0.0}, 0.0, 1),
    ):
        loss = losses.at_progress(losses.get_loss("dkd", **options), progress)
        np.testing.assert_allclose(loss(*inputs) - hard, share * whole, atol=1e-3)


@pytest.mark.parametrize("name", sorted(set(losses.LOSS_NAMES) - {"ce"}))
def test_the_other_losses_say_that_they_need_soft_labels(name):
    student, _, labels = batch()
    loss = losses.get_loss(name)
    with pytest.raises(ValueError, match=f"loss '{name}' needs soft labels"):
        loss(student, None, labels)


# --- Losses of others ---------------------------------------------------------------


def scaled_mse(student_logits, teacher_logits, labels, *, temperature=2.0, power=2):
    assert student_logits.dtype == teacher_logits.dtype == jnp.float32
    difference = (student_logits - teacher_logits) / temperature
    return jnp.mean(jnp.abs(difference) ** power, axis=-1)


def test_a_loss_of_ones_own_has_hyperparameters_of_its_own():
    assert losses.hyperparameters(scaled_mse) == {"temperature": 2.0, "power": 2}
    student, teacher, labels = batch()
    for temperature, options in ((2.0, {}), (-4.0, {"temperature": -4.0})):
        loss = losses.get_loss(scaled_mse, **options)
        for dtype in (jnp.float32, jnp.float16):
            np.testing.assert_allclose(
                loss(student.astype(dtype), teacher.astype(dtype), labels),
                losses.mse(student.astype(dtype), teacher.astype(dtype), labels)
                / temperature**2,
                rtol=1e-6,
            )


def test_a_loss_of_ones_own_may_compute_in_bfloat16():
    def half(student_logits, teacher_logits, labels):
        return jnp.mean(student_logits - teacher_logits, -1).astype(jnp.bfloat16)

    value = losses.get_loss(half)(*batch())
    assert value.dtype == jnp.float32


def test_a_loss_of_ones_own_may_read_hard_labels_only():
    def margin(student_logits, teacher_logits, labels):
        own = jnp.take_along_axis(student_logits, labels[:, None], axis=-1)
        return jnp.maximum(0, 1 + student_logits - own).sum(axis=-1)

    loss = losses.get_loss(margin)
    assert losses.hyperparameters(margin) == {}
    value = loss(jnp.array([[2.0, 1.5, 0.0]]), None, jnp.array([0]))
    np.testing.assert_allclose(value, [1.5])


def no_default(student_logits, teacher_logits, labels, *, weight):
    return student_logits[:, 0] * weight


def fails(student_logits, teacher_logits, labels):
    return student_logits @ teacher_logits


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (
            lambda s, t, y: jnp.mean(s - t),
            {},
            r"gives .*\(shape=\(\), .* for 3 examples",
        ),
        (lambda s, t, y: s - t, {}, r"shape=\(3, 4\)"),
        (lambda s, t, y: y, {}, "dtype=int32.* expected one float for each"),
        (lambda s, t, y: None, {}, "gives None"),
        (lambda s, t: s[:, 0], {}, "takes 2 positional arguments"),
        (no_default, {}, "'weight' of loss 'no_default' has no default"),
        (fails, {}, "loss 'fails': .*dot_general"),
        (lambda s, t, y: {}["key"], {}, "loss '<lambda>': KeyError: 'key'"),
        (scaled_mse, {"temperature": np.nan}, "temperature .* is nan"),
        (scaled_mse, {"temperature": "2"}, "temperature .* is '2'"),
        (
            scaled_mse,
            {"gamma": 1.0},
            "no hyperparameter 'gamma'; it has temperature, p",
        ),
    ],
)
def test_what_is_no_loss_is_refused(function, options, message):
    with pytest.raises(ValueError, match=message):
        losses.get_loss(function, **options)


def test_one_s_own_loss_is_not_taken_for_one_of_the_same_name():
    def gift(student_logits, teacher_logits, labels, *, gamma=-3.0):
        return gamma * student_logits[:, 0]

    assert losses.hyperparameters(gift) == {"gamma": -3.0}
    student, teacher, labels = batch()
    np.testing.assert_allclose(
        losses.get_loss(gift, gamma=-2)(student, teacher, labels), -2 * student[:, 0]
    )
