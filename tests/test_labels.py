"""Tests of `gift_jax.labels` against closed forms and float64 NumPy."""

import ast
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import gift_jax
from gift_jax import labels

PACKAGE = pathlib.Path(gift_jax.__file__).parent
ROWS, CLASSES = 4, 5

logits_arrays = hnp.arrays(
    np.float32, (ROWS, CLASSES), elements=st.floats(-50, 50, width=32)
)
class_arrays = hnp.arrays(np.int32, (ROWS,), elements=st.integers(0, CLASSES - 1)).map(
    jnp.asarray
)


def project_imports(module):
    """Modules of gift_jax that a module of gift_jax imports."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            prefix = "gift_jax" if node.level else node.module
            found |= {f"{prefix}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "gift_jax"}


def test_the_modules_that_people_copy_stand_alone():
    assert project_imports("labels") == set()
    assert project_imports("losses") == {"gift_jax.labels"}


# --- unit_length --------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(logits_arrays)
def test_unit_length_equals_numpy(vectors):
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)
    expected = np.where(lengths > 1e-12, vectors / np.maximum(lengths, 1e-12), 0)
    np.testing.assert_allclose(labels.unit_length(vectors), expected, atol=1e-6)


@pytest.mark.parametrize("length", [1e-10, 1e-6, 1.0, 1e4, 1e8])
def test_unit_length_of_short_and_long_vectors(length):
    unit = labels.unit_length(length * jnp.array([0.6, -0.8]))
    np.testing.assert_allclose(unit, [0.6, -0.8], rtol=1e-6)


@pytest.mark.parametrize("vector", [[0.0, 0.0], [1e-13, -1e-13], [-0.0, 1e-30]])
def test_a_vector_without_direction_gives_zero_and_no_gradient(vector):
    vector = jnp.array(vector)
    np.testing.assert_array_equal(labels.unit_length(vector), [0, 0])
    np.testing.assert_array_equal(
        jax.jacobian(labels.unit_length)(vector), np.zeros((2, 2))
    )


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_no_number_is_not_taken_for_zero(number):
    assert np.isnan(labels.unit_length(jnp.array([number, 1.0]))).any()


def test_unit_length_has_the_jacobian_of_a_projection():
    vector = np.array([1.0, -2.0, 2.0])
    unit = vector / 3
    expected = (np.eye(3) - np.outer(unit, unit)) / 3
    actual = jax.jacobian(labels.unit_length)(jnp.asarray(vector, jnp.float32))
    np.testing.assert_allclose(actual, expected, atol=1e-6)


# --- smooth_labels ------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [2, 10, 1000])
@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5])
def test_smooth_labels_on_and_off_the_class(num_classes, alpha):
    classes = jnp.array([0, num_classes - 1, num_classes // 2])
    smooth = np.asarray(labels.smooth_labels(classes, num_classes, alpha))
    expected = np.full((3, num_classes), alpha / (num_classes - 1))
    expected[np.arange(3), classes] = 1 - alpha
    np.testing.assert_allclose(smooth, expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(smooth.sum(axis=-1), 1, rtol=1e-5)
    assert smooth.dtype == np.float32


def test_smoothing_differs_from_that_of_pytorch_as_documented():
    # torch.nn.functional.cross_entropy(label_smoothing=0.1) with 10 classes
    # has 0.91 on the class and 0.01 off it.
    smooth = labels.smooth_labels(jnp.array([0]), 10, alpha=0.1)[0]
    np.testing.assert_allclose(smooth[:2], [0.9, 0.1 / 9], rtol=1e-6)
    torch_smoothing = 0.9 * np.eye(10)[0] + 0.1 / 10
    assert np.abs(smooth - torch_smoothing).max() == pytest.approx(0.01, rel=1e-4)


@settings(deadline=None, max_examples=25)
@given(class_arrays, st.floats(0, 1, width=32))
def test_smooth_labels_permute_with_the_classes(classes, alpha):
    permutation = np.array([3, 0, 4, 1, 2])
    smooth = np.asarray(labels.smooth_labels(classes, CLASSES, alpha))
    renamed = labels.smooth_labels(jnp.asarray(permutation)[classes], CLASSES, alpha)
    np.testing.assert_array_equal(np.asarray(renamed)[:, permutation], smooth)


def test_smooth_labels_take_any_leading_shape():
    classes = jnp.arange(6).reshape(2, 3) % 4
    smooth = labels.smooth_labels(classes, 4)
    assert smooth.shape == (2, 3, 4)
    np.testing.assert_array_equal(jnp.argmax(smooth, axis=-1), classes)


def test_a_label_out_of_range_is_spread_evenly():
    smooth = labels.smooth_labels(jnp.array([-1, 4]), 4, alpha=0.3)
    np.testing.assert_allclose(smooth, np.full((2, 4), 0.1), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bool"])
def test_smooth_labels_refuse_labels_that_are_no_integers(dtype):
    with pytest.raises(TypeError, match=f"must be integers, got dtype {dtype}"):
        labels.smooth_labels(jnp.zeros(2, dtype), 4)


def test_smooth_labels_refuse_a_single_class():
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        labels.smooth_labels(jnp.array([0]), 1)


# --- correct_labels -----------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(logits_arrays, class_arrays)
def test_corrected_logits_are_the_teachers_with_the_label_on_top(logits, classes):
    corrected = np.asarray(labels.correct_labels(jnp.asarray(logits), classes))
    at_label = np.arange(ROWS), np.asarray(classes)
    expected = np.array(logits)
    expected[at_label] = logits.max(axis=-1)
    # XLA may flush the smallest numbers to zero.
    np.testing.assert_allclose(corrected, expected, rtol=0, atol=1e-37)


def test_a_label_out_of_range_corrects_nothing():
    logits = jnp.array([[1.0, 3.0], [3.0, 1.0]])
    corrected = labels.correct_labels(logits, jnp.array([-1, 2]))
    np.testing.assert_array_equal(corrected, logits)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_corrected_logits_keep_leading_shapes_and_dtype(dtype):
    logits = jnp.arange(24, dtype=dtype).reshape(2, 3, 4)
    corrected = jax.jit(labels.correct_labels)(logits, jnp.zeros((2, 3), jnp.int32))
    assert corrected.dtype == dtype
    np.testing.assert_array_equal(corrected, logits[..., [3, 1, 2, 3]])


# --- refine_labels ------------------------------------------------------------------


def reference_refinement(logits, classes, gamma, alpha, mode):
    logits = np.asarray(logits, np.float64)
    num_classes = logits.shape[-1]
    hard = np.full(logits.shape, alpha / (num_classes - 1))
    hard[np.arange(len(hard)), classes] = 1 - alpha
    soft = logits / np.linalg.norm(logits, axis=-1, keepdims=True)
    hard /= np.linalg.norm(hard, axis=-1, keepdims=True)
    return (1 if mode == "additive" else 1 - gamma) * soft + gamma * hard


@pytest.mark.parametrize("mode", labels.REFINEMENT_MODES)
@pytest.mark.parametrize("gamma", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("num_classes", [2, 10, 1000])
def test_refine_labels_equals_the_formula(mode, gamma, num_classes):
    rng = np.random.default_rng(num_classes)
    logits = rng.normal(2, 5, (ROWS, num_classes)).astype(np.float32)
    classes = rng.integers(0, num_classes, ROWS)
    actual = labels.refine_labels(
        jnp.asarray(logits), jnp.asarray(classes), gamma=gamma, alpha=0.2, mode=mode
    )
    expected = reference_refinement(logits, classes, gamma, 0.2, mode)
    np.testing.assert_allclose(actual, expected, atol=2e-6)


def test_the_defaults_are_the_literals_of_the_official_code():
    logits = jnp.array([[1.0, -2.0, 0.5], [3.0, 0.0, 4.0]])
    classes = jnp.array([2, 0])
    np.testing.assert_array_equal(
        labels.refine_labels(logits, classes),
        labels.refine_labels(logits, classes, gamma=0.1, alpha=0.1, mode="additive"),
    )


def test_refined_rows_neither_sum_to_one_nor_have_unit_length():
    refined = labels.refine_labels(jnp.array([[0.0, 2.0]]), jnp.array([1]), alpha=0.0)
    np.testing.assert_allclose(refined, [[0.0, 1.1]], rtol=1e-6)


def test_a_teacher_row_of_zeros_leaves_the_hard_label():
    refined = labels.refine_labels(jnp.zeros((1, 2)), jnp.array([0]), alpha=0.0)
    np.testing.assert_allclose(refined, [[0.1, 0.0]], rtol=1e-6)


@settings(deadline=None, max_examples=25)
@given(logits_arrays, class_arrays, st.floats(0.125, 64, width=32))
def test_refinement_ignores_the_length_of_the_logits(logits, classes, scale):
    logits[:, 0] += 60  # away from zero, where the length matters
    refined = labels.refine_labels(jnp.asarray(logits), classes)
    scaled = labels.refine_labels(jnp.asarray(scale * logits), classes)
    np.testing.assert_allclose(scaled, refined, atol=1e-6)


def test_refinement_sees_a_constant_added_to_the_logits():
    logits, classes = jnp.array([[1.0, -1.0]]), jnp.array([0])
    refined = labels.refine_labels(logits, classes, gamma=0.0)
    shifted = labels.refine_labels(logits + 1, classes, gamma=0.0)
    np.testing.assert_allclose(refined, [[0.5**0.5, -(0.5**0.5)]], rtol=1e-6)
    np.testing.assert_allclose(shifted, [[1.0, 0.0]], atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_logits_are_refined_in_float32(dtype):
    logits = jnp.linspace(-3, 7, ROWS * CLASSES).reshape(ROWS, CLASSES).astype(dtype)
    classes = jnp.arange(ROWS)
    refined = labels.refine_labels(logits, classes)
    assert refined.dtype == jnp.float32
    np.testing.assert_array_equal(
        refined, labels.refine_labels(logits.astype(jnp.float32), classes)
    )


def test_refinement_under_vmap_and_jit_equals_a_loop():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(3, ROWS, CLASSES)))
    classes = jnp.arange(3 * ROWS).reshape(3, ROWS) % CLASSES
    loop = np.stack(
        [labels.refine_labels(*pair) for pair in zip(logits, classes, strict=True)]
    )
    mapped = jax.jit(jax.vmap(labels.refine_labels))(logits, classes)
    np.testing.assert_allclose(mapped, loop, atol=1e-6)
    np.testing.assert_allclose(labels.refine_labels(logits, classes), loop, atol=1e-6)


def test_gamma_may_be_traced():
    logits, classes = jnp.array([[3.0, 4.0]]), jnp.array([0])
    refine = jax.jit(lambda gamma: labels.refine_labels(logits, classes, gamma=gamma))
    for gamma in (0.0, 0.3):
        expected = reference_refinement(logits, classes, gamma, 0.1, "additive")
        np.testing.assert_allclose(refine(gamma), expected, atol=1e-6)


def test_refine_labels_refuses_an_unknown_mode():
    with pytest.raises(ValueError, match=r"'mixed', expected one of .*'convex'"):
        labels.refine_labels(jnp.ones((1, 2)), jnp.array([0]), mode="mixed")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": -0.1}, r"gamma is -0.1, expected a weight in \[0, inf\)"),
        ({"gamma": float("nan")}, "gamma is nan"),
        ({"gamma": float("inf")}, "gamma is inf"),
        ({"gamma": 1.5, "mode": "convex"}, r"gamma is 1.5, .*\[0, 1\] in the convex"),
        ({"alpha": 1.1}, "alpha is 1.1"),
        ({"alpha": float("nan")}, "alpha is nan"),
    ],
)
def test_refine_labels_refuses_weights_without_a_meaning(options, message):
    with pytest.raises(ValueError, match=message):
        labels.refine_labels(jnp.ones((1, 2)), jnp.array([0]), **options)


@pytest.mark.parametrize("shape", [(3,), (2, 1), ()])
def test_refine_labels_refuses_labels_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"\(2, 4\) need labels of shape \(2,\), got"):
        labels.refine_labels(jnp.ones((2, 4)), jnp.zeros(shape, jnp.int32))
