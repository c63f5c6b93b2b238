"""Distillers by name, those of the user's own among them."""

import dataclasses
import sys
from typing import NamedTuple

import numpy as np
import pytest

from gift_jax import distill
from gift_jax.data import info, preprocess, real, sources
from gift_jax.runtime import memory
from gift_jax.runtime.errors import InputError

NORMALIZATION = preprocess.Normalization((0.5,), (0.25,))

_MODULE = """
import dataclasses
import numpy as np
from gift_jax.distill import base

@dataclasses.dataclass(frozen=True)
class Means:
    needs = frozenset({"train_images"})
    ipc: int
    power: float = 1.0

    def make(self, data, *, teacher=None, seed, on_progress=None):
        images = data.train.all_images()
        means = [
            images[data.train.labels == label].mean(axis=0)[None].repeat(self.ipc, 0)
            for label in range(data.info.num_classes)
        ]
        return base.distilled_dataset(self, data, means, seed=seed)

class WithoutMake:
    def __init__(self, ipc):
        self.ipc, self.needs = ipc, frozenset()

class NeedsMuch(Means):
    needs = frozenset({"teacher", "luck"})

class WithoutIpc:
    pass

@dataclasses.dataclass(frozen=True)
class WithoutSeed(Means):
    def make(self, data, *, teacher, on_progress=None):
        pass

@dataclasses.dataclass(frozen=True)
class WithoutDirectory(Means):
    resumable = True

@dataclasses.dataclass(frozen=True)
class WithoutReal(Means):
    needs = frozenset({"teacher_gradients", "teacher_statistics"})
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_distillers.py").write_text(_MODULE)
    yield
    sys.modules.pop("my_distillers", None)


@pytest.fixture
def data():
    made = info.DatasetInfo("made", 2, 4, 1, NORMALIZATION)
    images = np.arange(4, dtype=np.uint8)[:, None, None, None]
    images = np.broadcast_to(images, (4, 4, 4, 1)).copy()
    records = sources.RecordList(images, np.array([0, 1, 0, 1]))
    split = real.ImageSplit(records, made, "train")
    return real.RealDataset(made, split, split)


def test_those_of_the_project_are_found_by_name():
    assert distill.make_distiller("random", ipc=3) == distill.Random(3)
    found = distill.make_distiller("rded", ipc=3, factor=2)
    assert found == distill.Rded(3, factor=2)
    assert "teacher" in found.needs and "teacher" not in distill.Random.needs
    for kind in distill.DISTILLERS.values():
        assert kind(ipc=1).needs <= distill.base.NEEDS


def test_one_of_the_users_own_makes_images(data):
    distiller = distill.make_distiller("my_distillers:Means", ipc=2, power=2.0)
    assert dataclasses.asdict(distiller) == {"ipc": 2, "power": 2.0}
    made = distiller.make(data, teacher=None, seed=5)
    np.testing.assert_allclose(made.images[:, 0, 0, 0] * 255, [1, 1, 2, 2])
    np.testing.assert_array_equal(made.labels, [0, 0, 1, 1])
    assert made.preprocess == NORMALIZATION
    assert (made.metadata.dataset, made.metadata.method) == ("made", "means")
    assert made.metadata.source == "means: ipc 2, power 2.0, seed 5, split train"


def test_labels_that_take_long_to_read_are_read_by_who_needs_them(data, monkeypatch):
    with pytest.raises(InputError, match="ipc is 3, but class 0 of made has 2"):
        distill.base.check_class_sizes(data, 3)
    monkeypatch.setattr(sources.RecordList, "labels_are_quick", False)
    monkeypatch.setattr(sources.RecordList, "labels", None)
    distill.base.check_class_sizes(data, 3)
    monkeypatch.undo()
    with pytest.raises(InputError, match="five are needed, but class 0 of made has 2"):
        distill.base.class_members(data, 5, "five are needed")


@pytest.mark.parametrize("name", ["dm", "dc", "datm"])
def test_train_images_that_memory_cannot_hold_are_refused(name, data, monkeypatch):
    large = dataclasses.replace(data.info, image_size=8)
    data = dataclasses.replace(data, info=large)
    # Four images of 8x8: 256 bytes as pixels, 1,280 with inputs in float32.
    held = 1280 if name == "datm" else 256
    distiller = distill.make_distiller(name, ipc=1, width=4)
    monkeypatch.setattr(memory, "total_bytes", lambda: held - 1)
    with pytest.raises(InputError, match="all 4 train images of made with 8x8 pixels"):
        distiller.check(data)
    monkeypatch.setattr(memory, "total_bytes", lambda: None)
    assert "8x8" not in refusal(distiller, data)
    monkeypatch.setattr(memory, "total_bytes", lambda: held)
    assert "8x8" not in refusal(distiller, data)


def refusal(distiller, data):
    """What else it is refused for, as four images are too few to whiten."""
    try:
        distiller.check(data)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rdde", {}, r"unknown distiller 'rdde' \(did you mean 'rded'"),
        ("my_distillers:Mean", {}, "did you mean 'Means'"),
        ("my_distillrs:Means", {}, "cannot be imported"),
        ("rded", {"factr": 2}, "'factr'.*it takes ipc, factor, images_per_class"),
        (
            "rded",
            {"factor": 0},
            "factor is 0, expected a whole number of at least 1",
        ),
        ("my_distillers:WithoutIpc", {}, "WithoutIpc cannot be called"),
        ("my_distillers:WithoutMake", {}, "WithoutMake has no method `make`"),
        ("my_distillers:NeedsMuch", {}, "`needs` is .*luck"),
        (
            "my_distillers:WithoutSeed",
            {},
            "`make` of the distiller my_distillers:WithoutSeed cannot be called .*"
            "'seed'.*: it is given the real dataset and teacher, seed, on_progress$",
        ),
        ("my_distillers:WithoutDirectory", {}, "'directory'.*progress, directory$"),
        ("my_distillers:WithoutReal", {}, "'real'.*on_progress, real$"),
    ],
)
def test_what_is_no_distiller_is_said(name, options, message):
    with pytest.raises(InputError, match=message):
        distill.make_distiller(name, ipc=1, **options)


class Constants(NamedTuple):
    iterations: int
    rate: float
    roll: tuple[int, int]


def test_options_stand_in_place_of_constants_where_they_are_not_zero():
    @dataclasses.dataclass
    class Made:
        iterations: int = 0
        rate: float = 0.5

    found = distill.base.chosen(Made(), Constants(7, 0.1, (0, 4)))
    assert found == Constants(7, 0.5, (0, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": -1}, "iterations is -1, expected a whole number of at least 0"),
        ({"iterations": 1.5}, "iterations is 1.5, expected a whole number"),
        ({"batch_size": 0}, "batch_size is 0, expected a whole number of at least 1"),
        ({"bn_weight": float("nan")}, "bn_weight is nan, expected a number"),
        ({"learning_rate": "1"}, "learning_rate is '1', expected a number"),
    ],
)
def test_options_are_numbers_of_their_kind(options, message):
    with pytest.raises(InputError, match=f"Sre2l: {message}"):
        distill.make_distiller("sre2l", ipc=1, **options)
