"""CDA's curriculum, against its formulas."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax.distill import Cda
from gift_jax.distill.recovery import cda
from gift_jax.runtime.errors import InputError
from tests.distill.recovery import networks


def test_constants_of_the_official_scripts():
    """Field by field: iterations, learning rate, r_bn, jitter, multi-crop."""
    assert [cda.Cda(1).constants(info) for info in networks.OFFICIAL] == [
        (1000, 0.25, 0.01, (0, 4), True),
        (4000, 0.4, 0.05, (0, 4), True),
        (4000, 0.25, 0.01, (0, 32), True),
    ]


@pytest.mark.parametrize("last", [0.0, 12.5, 20.0])
@pytest.mark.parametrize(
    ("curriculum", "share"),
    [
        ("cosine", lambda done: (1 + math.cos(math.pi * done)) / 2),
        ("linear", lambda done: 1 - done),
        ("step", lambda done: 1.0),
    ],
)
def test_the_least_area_falls_to_that_of_torchvision(curriculum, share, last):
    found = cda.min_area(jnp.arange(20), last, curriculum)
    expected = [0.08 + 0.92 * share(i / last) if i < last else 0.08 for i in range(20)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"curriculum": "cosin"}, "did you mean 'cosine'"),
        ({"milestone": 1.5}, "milestone is 1.5, expected a share"),
        ({"milestone": -0.5}, "milestone is -0.5, expected a number"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(InputError, match=message):
        Cda(1, **options)


def test_first_views_are_whole_and_later_ones_are_not(monkeypatch):
    seen = []
    monkeypatch.setattr(
        cda.sre2l.views,
        "resized_crop",
        lambda key, images, area: seen.append(area) or images,
    )
    monkeypatch.setattr(cda.sre2l, "look", lambda *_: {})
    method = Cda(1, iterations=10, milestone=0.5).method(
        networks.teacher(), networks.NORMALIZATION, networks.INFO
    )
    images, labels = np.zeros((2, 8, 8, 3), np.float32), np.zeros(2, np.int32)
    for iteration in (0, 4, 5, 9):
        task = cda.sre2l.loop.Task(jax.random.key(0), jnp.int32(iteration), labels)
        method.objectives[0](method.variables[0], images, (), task)
    np.testing.assert_allclose(seen[0], 1)
    assert 0.08 < seen[1] < 1
    np.testing.assert_allclose(seen[2:], 0.08)
