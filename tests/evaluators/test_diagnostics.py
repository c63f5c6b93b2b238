"""The numbers by name are those of the pure functions, on the whole split."""

import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax.diagnostics import calibration, information
from gift_jax.evaluators import diagnostics
from gift_jax.evaluators.diagnostics import TEMPERATURE, DiagnosticsEvaluator
from tests.evaluators.test_accuracy import (
    NORMALIZATION,
    PixelModel,
    Split,
    plain_teacher,
    random_split,
    shifted,
)

STATE = types.SimpleNamespace(evaluation_variables=shifted(0.5))


def logits_of(split, shift):
    pixels = split.pixels.astype(np.float32)[:, None]
    return -((np.arange(10) - pixels - shift) ** 2)


def measure(split, *, teacher, held_out, num_devices=1):
    evaluator = DiagnosticsEvaluator(
        split,
        NORMALIZATION,
        teacher=teacher,
        held_out=held_out,
        devices=jax.devices()[:num_devices],
        batch_size=8,
    )
    return evaluator(PixelModel(), STATE)


@pytest.fixture(scope="module")
def splits():
    held_out = random_split(23)
    return random_split(37), Split(held_out.pixels[::-1], held_out.labels)


@pytest.fixture(scope="module")
def measured(splits):
    return measure(splits[0], teacher=plain_teacher(2), held_out=splits[1])


def test_calibration_is_fitted_on_the_held_out_images(splits, measured):
    split, held_out = splits
    logits = logits_of(split, 0.5)
    temperature = calibration.fit_temperature(logits_of(held_out, 0.5), held_out.labels)
    assert measured["calibration_temperature"] == pytest.approx(temperature, rel=1e-3)
    for prefix, scaled in (("", logits), ("scaled_", logits / temperature)):
        for name, function in (
            ("nll", calibration.negative_log_likelihood),
            ("ece", calibration.expected_calibration_error),
        ):
            expected = function(scaled, split.labels)
            assert measured[prefix + name] == pytest.approx(expected, rel=1e-3)


def test_information_is_that_of_one_shuffled_block(splits, measured):
    """All 37 images are in it, so the order does not matter here."""
    split, _ = splits
    students, targets = (jnp.asarray(logits_of(split, s)) for s in (0.5, 2))
    assert measured["info_nce_ceiling"] == pytest.approx(math.log(37))
    for prefix, centred in (("", False), ("centred_", True)):
        expected = information.info_nce(
            students, targets, temperature=TEMPERATURE, centred=centred
        )
        for name, value in zip(
            ("alignment", "spread", "info_nce"),
            (expected.alignment, expected.spread, expected.bound),
            strict=True,
        ):
            assert measured[prefix + name] == pytest.approx(float(value), abs=1e-4)
        cosine = information.cosines(students, targets, centred=centred).mean()
        assert measured[f"{prefix}cosine"] == pytest.approx(float(cosine), abs=1e-5)


def test_blocks_of_a_sorted_split_are_of_all_classes(monkeypatch):
    monkeypatch.setattr(diagnostics, "BLOCK", 8)
    labels = np.sort(random_split(37).labels)
    found = measure(
        Split(labels, labels), teacher=plain_teacher(2), held_out=random_split(23)
    )
    assert found["info_nce_ceiling"] == pytest.approx(math.log(8))
    students, targets = (logits_of(Split(labels, labels), s) for s in (0.5, 2))

    def bound(order):
        """The mean of four blocks of eight; five images are left out."""
        blocks = order[:32].reshape(4, 8)
        parts = [
            information.info_nce(
                *(jnp.asarray(logits[b]) for logits in (students, targets)),
                temperature=TEMPERATURE,
            )
            for b in blocks
        ]
        return np.mean([part.bound for part in parts])

    shuffled = bound(np.random.default_rng(0).permutation(37))
    assert found["info_nce"] == pytest.approx(shuffled, abs=1e-4)
    assert abs(shuffled - bound(np.arange(37))) > 0.1


def test_lengths_are_means_over_the_split(splits, measured):
    logits = logits_of(splits[0], 0.5)
    assert measured["logit_length"] == pytest.approx(
        np.linalg.norm(logits, axis=1).mean(), rel=1e-5
    )
    centred = logits - logits.mean(1, keepdims=True)
    assert measured["centred_logit_length"] == pytest.approx(
        np.linalg.norm(centred, axis=1).mean(), rel=1e-5
    )
    assert "last_layer_length" not in measured  # the network has none


def test_devices_do_not_matter_and_a_teacher_need_not_be(splits, measured):
    split, held_out = splits
    on_four = measure(split, teacher=plain_teacher(2), held_out=held_out, num_devices=4)
    assert on_four == pytest.approx(measured, rel=1e-5)
    without = measure(split, teacher=None, held_out=held_out)
    names = {n for n in measured if "nce" in n or "cosine" in n or "alignment" in n}
    assert measured.keys() - without.keys() == {*names, "spread", "centred_spread"}
