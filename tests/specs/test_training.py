"""How students are labelled, trained and tuned: what is refused, what follows."""

import math

import pytest

from gift_jax.configs import digits
from gift_jax.runtime.errors import InputError
from gift_jax.specs import RelabelSpec, TrainSpec, TuningSpec, base


def spec(kind, **fields):
    config = digits.get_config()
    section = {RelabelSpec: "relabel", TrainSpec: "train", TuningSpec: "tuning"}[kind]
    config[section].update(fields)
    if kind is TrainSpec:
        return base.from_section(kind, config.train, evaluators=("accuracy",))
    return base.from_section(kind, config[section])


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (RelabelSpec, {"source": "disk"}, "store, online, dataset, fkd"),
        (RelabelSpec, {"source": "fkd"}, "belongs to the source 'fkd'"),
        (RelabelSpec, {"path": "x"}, "belongs to the source 'fkd'"),
        (RelabelSpec, {"views": -1}, r"relabel\.views is -1"),
        (RelabelSpec, {"source": "dataset", "format": "int8"}, "not stored here"),
        (TrainSpec, {"epochs": 0}, r"train\.epochs is 0"),
        (TrainSpec, {"batch_size": -4}, r"train\.batch_size is -4"),
        (TrainSpec, {"keep_checkpoints": 0}, r"train\.keep_checkpoints is 0"),
        (TuningSpec, {"factors": (1.0, 3.0)}, "three or more"),
        (TuningSpec, {"factors": (0.0, 1.0, 3.0)}, "positive"),
        (TuningSpec, {"factors": (1.0, 3.0, math.inf)}, "positive"),
        (TuningSpec, {"seeds": ()}, r"tuning\.seeds is \(\)"),
        (TuningSpec, {"validation_images": 0}, r"tuning\.validation_images is 0"),
    ],
)
def test_mistakes(kind, fields, message):
    with pytest.raises(InputError, match=message):
        spec(kind, **fields)


def test_evaluations_are_every_quarter_unless_said():
    assert spec(TrainSpec, epochs=200).evaluate_every == 50
    assert spec(TrainSpec, epochs=3).evaluate_every == 1
    assert spec(TrainSpec, epochs=200, eval_every=7).evaluate_every == 7


def test_only_stored_and_online_labels_need_a_teacher():
    assert spec(RelabelSpec).needs_teacher
    assert spec(RelabelSpec, source="online").needs_teacher
    assert not spec(RelabelSpec, source="dataset").needs_teacher


def test_an_unknown_evaluator():
    with pytest.raises(InputError, match=r"unknown evaluator 'acuracy'.*accuracy"):
        base.from_section(TrainSpec, digits.get_config().train, evaluators=("acuracy",))
