"""Cosines and the InfoNCE bound against closed forms."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gift_jax.diagnostics import information


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def in_numpy(students, targets, temperature):
    left, right = (
        np.asarray(rows, np.float64) / np.linalg.norm(rows, axis=1, keepdims=True)
        for rows in (students, targets)
    )
    scores = left @ right.T / temperature
    own = np.exp(np.diag(scores)) / np.exp(scores).sum(1)
    return np.mean(np.log(len(scores) * own))


def test_cosines_are_cosines_and_correlations():
    left, right = normal(7, 10), normal(7, 10, seed=1)
    found = information.cosines(left, right)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    np.testing.assert_allclose(found, np.sum(left * right, 1) / lengths, rtol=1e-5)
    found = information.cosines(left + 3, 2 * right - 1, centred=True)
    expected = [np.corrcoef(*rows)[0, 1] for rows in zip(left, right, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert information.cosines(jnp.zeros((1, 3)), jnp.ones((1, 3))) == 0


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_the_bound_is_that_of_the_definition(temperature):
    students, targets = normal(20, 10), normal(20, 10, seed=1)
    found = information.info_nce(students, targets, temperature=temperature)
    expected = in_numpy(students, targets, temperature)
    assert found.bound == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert found.alignment == pytest.approx(
        float(information.cosines(students, targets).mean()) / temperature, abs=1e-5
    )


@pytest.mark.parametrize("size", [2, 8, 32])
def test_rows_that_tell_each_image_apart_reach_the_ceiling(size):
    """Orthogonal rows: f_ii = 1 / T, else 0, and the bound has a closed form."""
    rows = jnp.eye(size)
    found = information.info_nce(rows, rows, temperature=0.1)
    expected = math.log(size) - math.log1p((size - 1) * math.exp(-10))
    assert found.bound == pytest.approx(expected, abs=1e-4)
    sharp = information.info_nce(rows, rows, temperature=0.01)
    assert sharp.bound == pytest.approx(math.log(size), abs=1e-4)


@pytest.mark.parametrize("classes", [2, 5])
def test_rows_that_tell_the_class_tell_its_entropy(classes):
    """I(label; label) = log C, which InfoNCE reaches with blocks of equal classes."""
    rows = jnp.eye(classes)[jnp.arange(20 * classes) % classes]
    found = information.info_nce(rows, rows, temperature=0.02)
    assert found.bound == pytest.approx(math.log(classes), abs=1e-4)


def test_constant_students_tell_nothing():
    found = information.info_nce(jnp.ones((20, 10)), normal(20, 10))
    assert found.bound <= 0
    same = information.info_nce(jnp.ones((20, 10)), jnp.ones((20, 10)))
    assert same.bound == pytest.approx(0, abs=1e-5)
    assert same.spread == pytest.approx(10, abs=1e-4)  # 1 / temperature


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(-5, 5), st.floats(0.1, 10))
def test_no_bound_is_above_log_b_and_scale_is_not_seen(seed, shift, scale):
    students, targets = normal(20, 10, seed=seed), normal(20, 10, seed=seed + 1)
    found = information.info_nce(students, targets)
    assert found.bound <= math.log(20)
    scaled = information.info_nce(scale * students, targets)
    assert scaled.bound == pytest.approx(float(found.bound), abs=1e-4)
    centred = information.info_nce(students, targets, centred=True)
    moved = information.info_nce(students + shift, targets, centred=True)
    assert moved.bound == pytest.approx(float(centred.bound), abs=1e-3)


def test_the_bound_is_below_the_information_of_gaussians():
    """Correlated pairs in 2 dimensions, whose directions cannot tell more than they."""
    correlation = 0.9
    rng = np.random.default_rng(0)
    students, noise = rng.normal(size=(2, 4000, 2))
    targets = correlation * students + math.sqrt(1 - correlation**2) * noise
    information_of_pairs = -math.log(1 - correlation**2)  # 2 * -log(1 - r^2) / 2
    bounds = [
        float(
            information.info_nce_in_blocks(
                jnp.asarray(students), jnp.asarray(targets), block=500, temperature=t
            ).bound
        )
        for t in (0.1, 0.3, 1.0)
    ]
    assert max(bounds) < information_of_pairs
    assert max(bounds) > 0.3 * information_of_pairs


def test_blocks_are_averaged_and_the_rest_is_left_out():
    students, targets = normal(25, 10), normal(25, 10, seed=1)
    found = information.info_nce_in_blocks(students, targets, block=10)
    parts = [
        information.info_nce(students[i : i + 10], targets[i : i + 10]) for i in (0, 10)
    ]
    for name in ("alignment", "spread", "bound"):
        expected = np.mean([getattr(part, name) for part in parts])
        assert getattr(found, name) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="block is 26, expected 1 to 25"):
        information.info_nce_in_blocks(students, targets, block=26)


def test_blocks_may_be_centred():
    students, targets = normal(20, 10) + 3, normal(20, 10, seed=1) - 1
    found = information.info_nce_in_blocks(students, targets, block=20, centred=True)
    whole = information.info_nce(students, targets, centred=True)
    assert found.bound == pytest.approx(float(whole.bound), abs=1e-5)
    assert found.alignment == pytest.approx(float(whole.alignment), abs=1e-5)
