"""The real dataset of a config."""

import dataclasses

import pytest

from gift_jax.runtime.errors import InputError
from gift_jax.specs import DatasetSpec

DIGITS = DatasetSpec("digits", "", None, (), (), "", "", None, 0)


def test_it_opens_what_it_describes():
    data = dataclasses.replace(
        DIGITS, mean=(0.25,), std=(0.5,), validation_images=100
    ).open()
    assert data.info.normalization.mean == (0.25,)
    assert (len(data.train), len(data.validation)) == (1337, 100)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"workers": -1}, r"dataset\.workers is -1"),
        ({"image_size": 0}, r"dataset\.image_size is 0"),
        ({"mean": (0.5,)}, r"dataset\.mean and dataset\.std"),
    ],
)
def test_mistakes(fields, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(DIGITS, **fields)


def test_an_unknown_name_is_found_when_it_is_opened():
    with pytest.raises(InputError, match="did you mean 'digits'"):
        dataclasses.replace(DIGITS, name="digts").open()
