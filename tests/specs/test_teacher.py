"""The teacher of a config."""

import pytest

from configs import digits
from gift_jax.runtime.errors import InputError
from gift_jax.specs import TeacherSpec


def teacher(**fields):
    section = digits.get_config().teacher
    section.update(fields)
    return TeacherSpec.from_section(section, seed=3)


def test_one_that_is_trained_here():
    spec = teacher()
    assert spec.label == "conv3-width=32" and spec.preprocess is None
    training = spec.training
    assert (training.epochs, training.batch_size, training.seed) == (30, 128, 3)
    assert (training.optimizer.name, training.optimizer.learning_rate) == ("sgd", 0.1)
    assert training.augmentation.pad_crop == 1


def test_one_that_is_imported_is_not_trained():
    spec = teacher(checkpoint="file.pth", mean=(0.5,), std=(0.25,))
    assert spec.training is None
    assert spec.preprocess.mean == (0.5,)


def test_one_of_the_user_s_own_is_no_network():
    spec = teacher(name="my_teacher:build")
    assert spec.network is None and spec.training is None
    assert spec.label == "my_teacher:build"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "conv99"}, "unknown teacher 'conv99'.*package.module:attribute"),
        ({"epochs": 0}, r"teacher\.epochs is 0"),
        ({"batch_size": 0}, r"teacher\.batch_size is 0"),
        ({"mean": (0.5,)}, r"teacher\.mean and teacher\.std"),
        ({"name": "mine:build", "checkpoint": "x.pth"}, "load weights there"),
    ],
)
def test_mistakes(fields, message):
    with pytest.raises(InputError, match=message):
        teacher(**fields)
