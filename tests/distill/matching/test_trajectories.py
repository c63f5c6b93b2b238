"""The matching loss, against unrolled steps written out and differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax.distill.matching import dm
from tests.distill.matching.smooth import (
    augment,
    case,
    loss,
    loss_and_gradient,
    trained,
    unflatten,
)


@pytest.fixture(autouse=True)
def scaled(monkeypatch):
    monkeypatch.setattr(dm, "augment", augment)


def direct(learnt, part):
    """The matching loss of that student."""
    target, start = map(unflatten, (part.target, part.start))

    def squares(one, other):
        each = jax.tree.map(lambda a, b: ((a - b) ** 2).sum(), one, other)
        return sum(jax.tree.leaves(each))

    return squares(trained(learnt, part), target) / squares(start, target)


def test_the_loss_and_its_gradient():
    learnt, part = case()
    found = loss_and_gradient(learnt, part)
    expected = jax.jit(jax.value_and_grad(direct))(learnt, part)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-6), found, expected
    )
    # By differences, each of the three by itself.
    step = 1e-2
    for name in learnt._fields:
        gradient = getattr(found[1], name)
        length = jnp.linalg.norm(gradient)
        values = [
            loss(
                learnt._replace(
                    **{name: getattr(learnt, name) + sign * step * gradient / length}
                ),
                part,
            )
            for sign in (1, -1)
        ]
        np.testing.assert_allclose((values[0] - values[1]) / (2 * step), length, 3e-2)


def test_a_student_that_stays_has_a_loss_of_one():
    learnt, part = case()
    still = learnt._replace(rate=jnp.float32(0))
    assert loss(still, part) == 1
