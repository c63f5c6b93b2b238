"""Evaluators by name, those of the user's own among them."""

import sys

import jax
import numpy as np
import pytest

from gift_jax import evaluators
from gift_jax.data import preprocess
from gift_jax.runtime.errors import InputError

NORMALIZATION = preprocess.Normalization((0.5,), (0.25,))

_MODULE = """
import numpy as np

class Brightness:
    def __init__(self, split, transform, *, devices, batch_size, workers):
        self.mean = transform.apply(split.images([0, 1]) / 255).mean()
        assert (len(devices), batch_size, workers) == (1, 8, None)

    def __call__(self, model, state):
        return {"brightness": np.float32(self.mean), "weights": state + model}

def returns_a_number(split, transform, **options):
    return lambda model, state: 3.5

def returns_text(split, transform, **options):
    return lambda model, state: {"margin": "large"}

def makes_nothing(split, transform, **options):
    pass

def takes_less(split):
    pass
"""


class Split:
    is_in_memory = True

    def __len__(self):
        return 2

    def images(self, indices, threads=None):
        return np.full((len(indices), 2, 2, 1), 51, np.uint8)

    def labels_of(self, indices):
        return np.zeros(len(indices), np.int32)


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_evaluators.py").write_text(_MODULE)
    yield
    sys.modules.pop("my_evaluators", None)


def make(name):
    return evaluators.make_evaluator(
        name,
        Split(),
        NORMALIZATION,
        devices=jax.devices()[:1],
        batch_size=8,
        workers=None,
    )


def test_those_of_the_project_are_found_by_name():
    assert isinstance(make("accuracy"), evaluators.AccuracyEvaluator)
    with pytest.raises(InputError, match=r"did you mean 'accuracy'"):
        make("acuracy")


def test_one_of_the_users_own_gives_plain_numbers():
    evaluator = make("my_evaluators:Brightness")
    numbers = evaluator(2, 3)
    assert numbers == {"brightness": pytest.approx((0.2 - 0.5) / 0.25), "weights": 5.0}
    assert all(type(value) is float for value in numbers.values())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_evaluators:Brighness", "did you mean 'Brightness'"),
        ("my_evaluaters:Brightness", "cannot be imported"),
        ("my_evaluators:takes_less", r"takes_less cannot be called .*factory\(split"),
        ("my_evaluators:makes_nothing", "made a NoneType, expected a function of"),
    ],
)
def test_what_is_no_evaluator_is_said(name, message):
    with pytest.raises(InputError, match=message):
        make(name)


@pytest.mark.parametrize(
    ("name", "found"), [("returns_a_number", "3.5"), ("returns_text", "'large'")]
)
def test_what_is_no_number_by_name_is_said(name, found):
    evaluator = make(f"my_evaluators:{name}")
    with pytest.raises(InputError, match=f"my_evaluators:{name} returned .*{found}"):
        evaluator(None, None)
