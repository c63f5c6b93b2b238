"""Which students a config asks for, and what they are called."""

import pytest

from gift_jax.configs import digits
from gift_jax.runtime.errors import InputError
from gift_jax.specs import student as student_lib


def setups(**fields):
    config = digits.get_config()
    config.update_from_flattened_dict(fields)
    return list(student_lib.setups(config))


def test_names_are_told_apart_by_what_is_not_the_default():
    names = "kl+kl-t_squared=True+gift-gamma=0.2-mode=convex+gift"
    labels = [setup[0].loss.label for setup in setups(**{"loss.name": names})]
    assert labels == [
        "kl",
        "kl-t_squared=True",
        "gift-gamma=0.2-mode=convex",
        "gift",
    ]


def test_a_name_s_own_hyperparameters_come_before_those_of_the_config():
    first, second = setups(
        **{"loss.name": "gift-gamma=0.2+gift", "loss.gift.gamma": 0.5}
    )
    assert dict(first[0].loss.options)["gamma"] == 0.2
    assert dict(second[0].loss.options)["gamma"] == 0.5


def test_hyperparameters_belong_to_one_loss():
    kl, other = setups(**{"loss.name": "kl+mse_ce", "loss.mse_ce.ce_weight": 0.5})
    assert dict(other[0].loss.options) == {"ce_weight": 0.5}
    assert dict(kl[0].loss.options)["temperature"] == 20.0


def test_a_number_with_an_exponent_is_one_value():
    ((first, *_),) = setups(**{"loss.name": "gift-gamma=1e-3-alpha=0.2"})
    assert dict(first.loss.options) == {
        "alpha": 0.2,
        "gamma": 1e-3,
        "mode": "additive",
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gift-gama=1", "unknown option of loss gift 'gama'.*did you mean 'gamma'"),
        ("gift-gamma=much", "gamma=much must be of type float"),
        ("kl-t_squared=1", "t_squared=1 must be of type bool"),
        ("gift-gamma=1.5-mode=convex", "gamma"),
        ("kl-temperature=1e999", "temperature"),
        ("kl-gamma=0.2", "refine=True"),
        ("gift+gift", "one name twice"),
    ],
)
def test_wrong_losses(name, message):
    with pytest.raises(InputError, match=message):
        setups(**{"loss.name": name})


def test_equal_losses_are_one_object():
    (first, *_), (second, *_) = setups(**{"loss.name": "kl+gift"})
    assert first.loss.build() is not second.loss.build()
    ((again, *_),) = setups(**{"loss.name": "gift"})
    assert again.loss.build() is second.loss.build()


def test_students_are_all_combinations():
    found = setups(
        **{
            "loss.name": "gift+kl",
            "optimizer.name": "sgd+adamw",
            "student.name": "conv1+conv2",
            "train.seeds": (0, 1, 2),
        }
    )
    students = [student for setup in found for student in setup]
    assert len(found) == 8 and len(students) == len(set(students)) == 24
    assert [student.seed for student in found[0]] == [0, 1, 2]
    assert found[0][0].optimizer.learning_rate == 0.01


def test_another_rate_or_seed_is_another_student():
    ((student, *_),) = setups(**{"optimizer.name": "sgd", "loss.name": "gift"})
    other = student.with_learning_rate(0.5).with_seed(3)
    assert other.optimizer.label == student.optimizer.label == "sgd"
    assert (other.optimizer.learning_rate, other.seed) == (0.5, 3)


@pytest.mark.parametrize("seeds", [(), (1, 1), ("a",), (-1,), (True,)])
def test_wrong_seeds(seeds):
    config = digits.get_config()
    config.train.seeds = seeds
    with pytest.raises(InputError, match=r"train\.seeds is .*different whole numbers"):
        list(student_lib.setups(config))
