"""Which students a config asks for, and what they are called."""

import pytest

from configs import digits
from gift_jax.specs import options, settings, students


def setups(**fields):
    config = digits.get_config()
    config.update_from_flattened_dict(fields)
    return students.setups(config)


def test_names_are_told_apart_by_what_is_not_the_default():
    labels = [
        setup[0].loss_label
        for setup in setups(
            **{"loss.name": "kl+kl-t_squared=True+gift-gamma=0.2-mode=convex+gift"}
        )
    ]
    assert labels == [
        "kl",
        "kl-t_squared=True",
        "gift-gamma=0.2-mode=convex",
        "gift",
    ]


def test_a_name_s_own_hyperparameters_come_before_those_of_the_config():
    first, second = setups(**{"loss.name": "gift-gamma=0.2+gift", "loss.gamma": 0.5})
    assert dict(first[0].loss_options)["gamma"] == 0.2
    assert dict(second[0].loss_options)["gamma"] == 0.5


def test_a_number_with_an_exponent_is_one_value():
    ((student, *_),) = setups(**{"loss.name": "gift-gamma=1e-3-alpha=0.2"})
    assert dict(student.loss_options) == {
        "alpha": 0.2,
        "gamma": 1e-3,
        "mode": "additive",
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gift-gama=1", "unknown hyperparameter of gift 'gama'.*did you mean 'gamma'"),
        ("gift-gamma=much", "gamma=much must be of type float"),
        ("kl-t_squared=1", "t_squared=1 must be of type bool"),
    ],
)
def test_wrong_hyperparameters(name, message):
    with pytest.raises(ValueError, match=message):
        setups(**{"loss.name": name})


def test_optimizers_are_named_by_what_is_not_their_default():
    ((student, *_),) = setups(
        **{"optimizer.name": "sgd", "optimizer.nesterov": True, "loss.name": "gift"}
    )
    assert student.optimizer_label == "sgd-nesterov=True"
    other = student.with_learning_rate(0.5).with_seed(3)
    assert other.optimizer_label == "sgd-nesterov=True"
    assert (other.optimizer.learning_rate, other.seed) == (0.5, 3)


def test_an_optimizer_s_name_can_bring_options_of_its_own():
    plain, other = (
        setup[0]
        for setup in setups(
            **{
                "optimizer.name": "sgd+sgd-weight_decay=0.0-schedule=cosine",
                "loss.name": "gift",
            }
        )
    )
    assert plain.optimizer_label == "sgd"
    assert other.optimizer.weight_decay == 0.0
    assert other.optimizer.schedule == "cosine"
    assert other.optimizer_label == "sgd-weight_decay=0.0-schedule=cosine"
    for name in ("sgd-decay=0.0", "sgd-learning_rate=0.1", "sgd-nesterov=2"):
        with pytest.raises(ValueError, match=r"unknown option of sgd|of type bool"):
            setups(**{"optimizer.name": name})


def test_networks_are_named_by_what_is_not_the_official_default():
    config = digits.get_config()
    assert settings.network_label(config.student, "conv3") == "conv3-width=32"
    assert settings.network_label(config.student, "resnet18") == "resnet18"
    config.student.width = 128
    config.student.dtype = "bfloat16"
    assert settings.network_label(config.student, "conv3") == "conv3-dtype=bfloat16"


def test_a_grid_is_expanded_to_one_teacher_and_one_distilled_dataset():
    config = digits.get_config()
    config.teacher.name = "conv3+conv2"
    config.variants = ("ipc=1", "ipc=10,loss.gamma=0.2")
    singles = list(settings.expand(config))
    assert [
        (c.distilled.ipc, c.teacher.name, c.distilled.name, c.loss.gamma)
        for c in singles
    ] == [
        (ipc, teacher, distilled, gamma)
        for ipc, gamma in ((1, 0.1), (10, 0.2))
        for teacher in ("conv3", "conv2")
        for distilled in ("random", "rded")
    ]
    assert config.distilled.ipc == 10 and config.teacher.name == "conv3+conv2"


def test_a_published_dataset_has_one_name():
    config = digits.get_config()
    config.distilled.path = "data.pt"
    with pytest.raises(ValueError, match="give it one name"):
        list(settings.expand(config))


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [("3", float, 3.0), ("1e-3", float, 1e-3), ("True", bool, True), ("x", str, "x")],
)
def test_option_values(text, kind, value):
    parsed = options.parse_value(text, kind, "name")
    assert parsed == value and type(parsed) is kind
