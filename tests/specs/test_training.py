"""How students are labelled, trained and tuned: what is refused, what follows."""

import math

import pytest

from gift_jax.augment import AugmentSpec
from gift_jax.configs import digits
from gift_jax.runtime.errors import InputError
from gift_jax.specs import RelabelSpec, TrainSpec, TuningSpec, base
from gift_jax.specs.training import SOFT_LABEL_SOURCES


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
        (RelabelSpec, {"source": "disk"}, "store, online, fixed, dataset, fkd, hard"),
        (RelabelSpec, {"source": "fkd"}, "belongs to the source 'fkd'"),
        (RelabelSpec, {"path": "x"}, "belongs to the source 'fkd'"),
        (
            RelabelSpec,
            {"source": "fkd", "path": "x", "views": 3},
            "views is 3, but an FKD folder has views of its own",
        ),
        (RelabelSpec, {"store": "s3:bucket"}, "'s3:bucket', expected .* s3://BUCKET"),
        (RelabelSpec, {"store": "gs:/b"}, "'gs:/b', expected a local path, gs://"),
        (RelabelSpec, {"views": -1}, r"relabel\.views is -1"),
        (RelabelSpec, {"source": "dataset", "format": "int8"}, "not stored here"),
        (RelabelSpec, {"format": "float61"}, "'float61'.*did you mean 'float16'"),
        (RelabelSpec, {"source": "hard", "format": "top0"}, "format 'top0'"),
        (RelabelSpec, {"hard_epochs": -1}, r"relabel\.hard_epochs is -1"),
        (RelabelSpec, {"hard_epochs": 2, "source": "hard"}, "source is 'hard'"),
        (RelabelSpec, {"hard_loss": "ce-smoothing=0.1"}, "there are no epochs for it"),
        (
            RelabelSpec,
            {"hard_epochs": 2, "hard_loss": "gift"},
            "'gift', which needs soft labels",
        ),
        (
            RelabelSpec,
            {"hard_epochs": 2, "hard_loss": "ce-smoothing=2.0"},
            r"smoothing is 2\.0, expected a share",
        ),
        (TrainSpec, {"epochs": 0}, r"train\.epochs is 0"),
        (TrainSpec, {"batch_size": -4}, r"train\.batch_size is -4"),
        (TrainSpec, {"keep_checkpoints": 0}, r"train\.keep_checkpoints is 0"),
        (TuningSpec, {"factors": (1.0, 3.0)}, "three or more"),
        (TuningSpec, {"factors": ("a", "b", "c")}, "expected three or more"),
        (TuningSpec, {"factors": (0.0, 1.0, 3.0)}, "positive"),
        (TuningSpec, {"factors": (1.0, 3.0, math.inf)}, "positive"),
        (TuningSpec, {"seeds": ()}, r"tuning\.seeds is \(\)"),
        (
            TuningSpec,
            {"enabled": True, "validation_images": 0},
            r"tuning\.validation_images is 0",
        ),
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
    assert spec(RelabelSpec, source="fixed").needs_teacher
    assert not spec(RelabelSpec, source="dataset").needs_teacher
    assert not spec(RelabelSpec, source="hard").needs_teacher


def test_labels_are_stored_by_their_codec():
    stored = [s for s in SOFT_LABEL_SOURCES if spec_of(s).is_stored]
    assert stored == ["store", "fixed"]
    assert spec(RelabelSpec, format="top10").codec.row_bytes(num_classes=1000) == 42


def spec_of(source):
    return spec(RelabelSpec, source=source, path="x" if source == "fkd" else "")


def test_a_label_says_what_is_done_with_hard_labels():
    assert spec(RelabelSpec).label == "store"
    assert spec(RelabelSpec, source="fixed", mix_hard_labels=True).label == (
        "fixed-mix_hard_labels=True"
    )
    hald = spec(RelabelSpec, hard_epochs=200, hard_loss="ce-smoothing=0.8")
    assert hald.label == "store-hard_epochs=200-hard_loss=ce-smoothing=0.8"
    assert hald.loss_of_hard_epochs.label == "ce-smoothing=0.8"


def test_labels_that_are_the_images_own_are_mixed_as_they_are():
    cutmix = AugmentSpec(mix="cutmix")
    for source, expected in (("store", "none"), ("fixed", "both"), ("dataset", "both")):
        assert spec(RelabelSpec, source=source).label_mix(cutmix) == expected
        assert spec(RelabelSpec, source=source).label_mix(AugmentSpec()) == "none"
    mixed = spec(RelabelSpec, mix_hard_labels=True)
    assert mixed.label_mix(cutmix) == "hard"
    fkd = spec(RelabelSpec, source="fkd", path="x", mix_hard_labels=True)
    assert fkd.label_mix(AugmentSpec()) == "hard"
    with pytest.raises(InputError, match="there are no mixed pictures"):
        mixed.label_mix(AugmentSpec(flip=True))


def test_an_unknown_evaluator():
    with pytest.raises(InputError, match=r"unknown evaluator 'acuracy'.*accuracy"):
        base.from_section(TrainSpec, digits.get_config().train, evaluators=("acuracy",))


def test_an_evaluator_is_named_once():
    with pytest.raises(InputError, match=r"'accuracy\+accuracy', expected each once"):
        base.from_section(
            TrainSpec, digits.get_config().train, evaluators=("accuracy",) * 2
        )


def test_the_accuracy_is_always_measured():
    with pytest.raises(InputError, match="'diagnostics', expected accuracy and others"):
        base.from_section(
            TrainSpec, digits.get_config().train, evaluators=("diagnostics",)
        )
