"""Optimizers of a config: whose options are whose."""

import pytest

from gift_jax.configs import digits
from gift_jax.runtime.errors import InputError
from gift_jax.specs.optimizer import check_used, optimizer_spec


def spec(text, **fields):
    section = digits.get_config().optimizer
    section.update(fields)
    return optimizer_spec(section, text)


def test_the_section_gives_what_the_name_does_not():
    found = spec("sgd-weight_decay=0.0-schedule=cosine", nesterov=True)
    assert (found.weight_decay, found.schedule, found.nesterov) == (0, "cosine", True)
    assert found.label == "sgd-weight_decay=0.0-nesterov=True-schedule=cosine"
    assert spec("sgd").label == "sgd"


def test_an_option_is_for_the_optimizers_that_have_it():
    assert spec("adamw", momentum=0.5) == spec("adamw")
    assert spec("sgd", momentum=0.5) != spec("sgd")


@pytest.mark.parametrize(
    "name", ["sgd-decay=0.0", "adamw-momentum=0.5", "lion-decay_vectors=False"]
)
def test_unknown_options(name):
    with pytest.raises(InputError, match="unknown option of"):
        spec(name)


def test_a_name_brings_a_learning_rate_for_which_the_section_has_another():
    found = spec("sgd-learning_rate=0.2")
    assert (found.learning_rate, found.label) == (0.2, "sgd")
    assert spec("sgd-learning_rate=0.2", learning_rate=0.5).learning_rate == 0.5
    with pytest.raises(InputError, match="learning_rate=fast must be of type float"):
        spec("sgd-learning_rate=fast")


def test_a_value_of_another_type():
    with pytest.raises(InputError, match="nesterov=2 must be of type bool"):
        spec("sgd-nesterov=2")


def test_an_option_without_effect_is_refused():
    section = digits.get_config().optimizer
    section.momentum = 0.5
    with pytest.raises(InputError, match=r"optimizer\.momentum is 0\.5.*no effect"):
        check_used(section, [spec("adamw"), spec("lion")])
    check_used(section, [spec("adamw"), spec("sgd")])
