"""Calibration against values by hand and probabilities that are known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from gift_jax.diagnostics import calibration


def drawn(count, classes=5, seed=0):
    """Logits, and labels drawn from their softmax."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(count, classes))
    total = special.softmax(logits, axis=1).cumsum(1)
    return logits, (rng.random((count, 1)) > total[:, :-1]).sum(1)


def test_likelihoods_by_hand():
    logits = np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    found = calibration.negative_log_likelihood(logits, np.array([0, 1]))
    assert found == pytest.approx((math.log(2) + math.log(10)) / 2)
    even = calibration.negative_log_likelihood(np.zeros((4, 10)), np.arange(4))
    assert even == pytest.approx(math.log(10))


def test_calibration_errors_by_hand():
    """Two confidences, 0.6 and 0.9, of which half and all are right."""
    logits = np.log([[0.6, 0.4], [0.6, 0.4], [0.9, 0.1], [0.1, 0.9]])
    labels = np.array([0, 1, 0, 1])
    found = calibration.expected_calibration_error(logits, labels)
    assert found == pytest.approx(0.5 * 0.1 + 0.5 * 0.1)
    # In one bin the mean confidence is 0.75, and so is the accuracy.
    one = calibration.expected_calibration_error(logits, labels, bins=1)
    assert one == pytest.approx(0, abs=1e-12)
    fifteen = calibration.expected_calibration_error(*drawn(500), bins=15)
    assert calibration.expected_calibration_error(*drawn(500)) == fifteen


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    # 0.5 and right, 0.45 and wrong: both are in (0, 0.5].
    logits = np.array([[0.0, 0.0, -1e4], np.log([0.45, 0.3, 0.25])])
    found = calibration.expected_calibration_error(logits, np.array([0, 1]), bins=2)
    assert found == pytest.approx(0.05 / 2)


def test_certain_and_wrong_is_the_worst():
    logits = np.array([[1e4, 0.0], [0.0, 1e4]])
    assert calibration.expected_calibration_error(logits, np.array([1, 0])) == 1
    assert calibration.expected_calibration_error(logits, np.array([0, 1])) == 0


def test_probabilities_that_labels_are_drawn_from_are_calibrated():
    logits, labels = drawn(40_000)
    assert calibration.expected_calibration_error(logits, labels) < 0.01
    over = calibration.expected_calibration_error(3 * logits, labels)
    assert over > 0.1
    assert calibration.fit_temperature(logits, labels) == pytest.approx(1, abs=0.03)


@settings(max_examples=15, deadline=None)
@given(st.floats(0.05, 20))
def test_the_temperature_undoes_a_scale(scale):
    logits, labels = drawn(500)
    fitted = calibration.fit_temperature(logits, labels)
    assert calibration.fit_temperature(scale * logits, labels) == pytest.approx(
        scale * fitted, rel=1e-3
    )


def test_no_other_temperature_is_better():
    logits, labels = drawn(500)
    fitted = calibration.fit_temperature(3 * logits, labels)
    best = calibration.negative_log_likelihood(3 * logits / fitted, labels)
    for other in np.geomspace(0.1, 30, 50):
        tried = calibration.negative_log_likelihood(3 * logits / other, labels)
        assert tried >= best - 1e-9


def test_temperatures_without_an_optimum_end_at_the_bounds():
    logits, labels = np.eye(3), np.arange(3)
    assert calibration.fit_temperature(logits, labels) < 0.1
    assert calibration.fit_temperature(-logits, labels) == pytest.approx(1e3, rel=0.01)
