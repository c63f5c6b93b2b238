"""Checks that all specs share."""

import dataclasses
import math

import pytest
from ml_collections import ConfigDict

from gift_jax.runtime.errors import InputError
from gift_jax.specs import base


@dataclasses.dataclass(frozen=True)
class Example:
    width: int | None
    rate: float


def test_fields_come_from_the_section_or_are_given():
    section = ConfigDict({"width": 3, "rate": 0.5, "other": 1})
    assert base.from_section(Example, section) == Example(3, 0.5)
    assert base.from_section(Example, section, rate=2.0) == Example(3, 2.0)


@pytest.mark.parametrize("rate", [0.4, math.nan, math.inf])
def test_numbers_that_are_too_small_or_none(rate):
    with pytest.raises(InputError, match=rf"part\.rate is {rate}.*at least 0\.5"):
        base.check_least("part", Example(None, rate), width=1, rate=0.5)
    base.check_least("part", Example(None, 0.5), width=1, rate=0.5)


def test_options_are_complete_and_sorted():
    defaults = {"b": 1, "a": 2.0}
    assert base.chosen_options("x", {}, defaults) == (("a", 2.0), ("b", 1))
    chosen = base.chosen_options("x", {"a": "3"}, defaults, {"a": 4.0, "b": 5})
    assert chosen == (("a", 3.0), ("b", 5))
    with pytest.raises(InputError, match="unknown option of x 'c'"):
        base.chosen_options("x", {"c": "3"}, defaults)


def test_channel_statistics():
    assert base.normalization("dataset", (), ()) is None
    assert base.normalization("dataset", (0.5,), (0.2,)).std == (0.2,)
    with pytest.raises(InputError, match=r"teacher\.mean and teacher\.std"):
        base.normalization("teacher", (0.5,), ())


def test_home_is_expanded_in_paths(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Paths:
        path: str
        data_dir: str
        name: str

    monkeypatch.setenv("HOME", "/home/me")
    section = ConfigDict({"path": "~/x.pt", "data_dir": "", "name": "~/x"})
    assert base.from_section(Paths, section) == Paths("/home/me/x.pt", "", "~/x")
