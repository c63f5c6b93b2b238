"""Several networks as one teacher."""

import dataclasses

import jax
import numpy as np
import pytest

from gift_jax import models
from gift_jax.data import preprocess
from gift_jax.teachers import FlaxTeacher, TeacherError, ensemble

NORMALIZATION = preprocess.Normalization((0.5,), (0.25,))


def network(name, norm="batch", seed=0):
    model = models.create_model(name, num_classes=10, image_size=8, width=4, norm=norm)
    key = jax.random.key(seed)
    variables = models.init_variables(model, key, image_size=8, channels=1)
    return FlaxTeacher(name, model, jax.device_get(variables), NORMALIZATION)


@pytest.fixture(scope="module")
def teachers():
    return [network("conv1"), network("conv2", norm="none"), network("conv1", seed=1)]


def test_logits_are_the_mean_of_theirs(teachers):
    pixels = np.random.default_rng(0).uniform(size=(5, 8, 8, 1)).astype(np.float32)
    expected = np.mean([teacher.logits(pixels) for teacher in teachers], axis=0)
    together = ensemble.average("three", teachers)
    np.testing.assert_allclose(together.logits(pixels), expected, rtol=1e-5, atol=1e-6)


def test_it_is_taken_apart_again(teachers):
    members = ensemble.members(ensemble.average("three", teachers))
    for found, teacher in zip(members, teachers, strict=True):
        assert found.model == teacher.model and found.preprocess == NORMALIZATION
        jax.tree.map(np.testing.assert_array_equal, found.variables, teacher.variables)
    assert ensemble.members(teachers[0]) == [teachers[0]]


def test_any_other_weight_is_another_teacher(teachers):
    first, second, third = teachers
    together = ensemble.average("three", teachers)
    again = ensemble.average("three", teachers)
    other = ensemble.average("three", [first, second, network("conv1", seed=2)])
    turned = ensemble.average("three", [third, second, first])
    fingerprints = {t.fingerprint for t in (together, again, other, turned)}
    assert together.fingerprint == again.fingerprint and len(fingerprints) == 3


def test_they_must_be_fed_the_same(teachers):
    other = preprocess.Normalization((0.4,), (0.25,))
    changed = dataclasses.replace(teachers[2], preprocess=other)
    with pytest.raises(TeacherError, match="three have different channel statistics"):
        ensemble.average("three", [*teachers[:2], changed])
