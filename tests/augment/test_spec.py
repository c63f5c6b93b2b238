"""Tests of `augment.spec`."""

import dataclasses
import json

import pytest

from gift_jax import augment
from gift_jax.runtime import errors

EVERYTHING = augment.AugmentSpec(
    factor=2,
    shuffle=3,
    resized_crop=0.3,
    pad_crop=3,
    flip=True,
    diffaug="color_crop_cutout_flip_scale_rotate",
    mix="cutmix",
)


def test_spec_survives_json_and_is_hashable():
    restored = augment.AugmentSpec(
        **json.loads(json.dumps(dataclasses.asdict(EVERYTHING)))
    )
    assert restored == EVERYTHING
    assert hash(restored) == hash(EVERYTHING)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"diffaug": "color_croop"}, r"'croop'.*did you mean 'crop'"),
        ({"diffaug": "color__flip"}, "unknown DiffAug operation ''"),
        ({"diffaug": "flip_flip"}, "at most once"),
        ({"mix": "cut-mix"}, r"'cut-mix'.*did you mean 'cutmix'"),
        ({"mix_alpha": 0.0}, "mix_alpha is 0.0, expected a positive"),
        ({"mix_alpha": float("nan")}, "mix_alpha is nan"),
        ({"mix_alpha": 0.8}, "mix_alpha is 0.8, but there is no mix"),
        ({"factor": 0}, "factor is 0, expected"),
        ({"factor": 1.5}, "factor is 1.5, expected"),
        ({"shuffle": 0}, "shuffle is 0, expected a whole number of strips"),
        ({"diffaug_mode": "singel"}, r"'singel'.*did you mean 'single'"),
        ({"diffaug_mode": "single", "diffaug": "flip"}, "no several operations"),
        (
            {"diffaug_mode": "single", "diffaug": "crop_flip", "flip": True},
            "flip is on, and flip is among",
        ),
        ({"resized_crop": 1.2}, "resized_crop is 1.2, expected"),
        ({"pad_crop": -1}, "pad_crop is -1, expected"),
    ],
)
def test_spec_refuses(fields, message):
    with pytest.raises(errors.InputError, match=message):
        augment.AugmentSpec(**fields)


def test_a_label_names_all_that_is_not_the_identity():
    assert augment.AugmentSpec().label == "none"
    assert EVERYTHING.label == (
        "factor=2-shuffle=3-resized_crop=0.3-pad_crop=3-flip=True"
        "-diffaug=color_crop_cutout_flip_scale_rotate-mix=cutmix"
    )
    for field in dataclasses.fields(EVERYTHING):
        if field.name not in ("mix_alpha", "diffaug_mode"):
            one = {field.name: getattr(EVERYTHING, field.name)}
            expected = "-".join(f"{k}={v}" for k, v in one.items())
            assert augment.AugmentSpec(**one).label == expected
    mixup = augment.AugmentSpec(mix="mixup", mix_alpha=0.8)
    assert mixup.label == "mix=mixup-mix_alpha=0.8"
    single = augment.AugmentSpec(diffaug="crop_flip", diffaug_mode="single")
    assert single.label == "diffaug=crop_flip-diffaug_mode=single"


def test_a_recipe_leaves_out_what_was_added_later_and_is_off():
    assert "shuffle" not in augment.AugmentSpec().recipe
    assert EVERYTHING.recipe["shuffle"] == 3
    single = augment.AugmentSpec(diffaug="crop_flip", diffaug_mode="single")
    for spec in (EVERYTHING, single, augment.AugmentSpec(factor=2)):
        assert augment.AugmentSpec(**spec.recipe) == spec
