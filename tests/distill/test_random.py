"""The baseline: real training images drawn at random."""

import functools
import re

import numpy as np
import pytest

from gift_jax.data import info, preprocess, real, sources
from gift_jax.distill import Random
from gift_jax.runtime.errors import InputError


@pytest.fixture(scope="module")
def digits():
    return real.load_dataset("digits")


def members(images):
    return [image.tobytes() for image in images]


def as_bytes(distilled):
    return members(np.rint(distilled.images * 255).astype(np.uint8))


def test_images_are_training_images_of_their_class(digits):
    made = Random(7).make(digits, seed=0)
    assert made.images.shape == (70, 8, 8, 1)
    np.testing.assert_array_equal(made.labels, np.repeat(np.arange(10), 7))
    labels = dict(
        zip(members(digits.train.all_images()), digits.train.labels, strict=True)
    )
    assert [labels[key] for key in as_bytes(made)] == made.labels.tolist()
    assert len(set(as_bytes(made))) == 70
    assert not set(as_bytes(made)) & set(members(digits.test.all_images()))
    assert made.preprocess == digits.info.normalization
    assert (made.metadata.dataset, made.metadata.method) == ("digits", "random")
    assert made.metadata.source == "random: ipc 7, seed 0, split train"


def test_the_seed_decides(digits):
    first = Random(3).make(digits, seed=5)
    second = Random(3).make(real.load_dataset("digits"), seed=5)
    other = Random(3).make(digits, seed=6)
    assert first.images.tobytes() == second.images.tobytes()
    assert first.images.tobytes() != other.images.tobytes()


def test_a_smaller_set_is_part_of_a_larger_one(digits):
    small = Random(2).make(digits, seed=0)
    large = Random(50).make(digits, seed=0)
    assert set(as_bytes(small)) < set(as_bytes(large))


def test_ipc_up_to_the_size_of_a_class():
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] + np.zeros(
        (5, 4, 4, 1), np.uint8
    )
    made = info.DatasetInfo("made", 2, 4, 1, preprocess.Normalization((0,), (1,)))
    split = real.ImageSplit(
        sources.RecordList(images, np.array([0, 1, 1, 0, 1])), made, "train"
    )
    dataset = real.RealDataset(made, split, split)
    found = Random(2).make(dataset, seed=0).images[:, 0, 0, 0] * 255
    assert set(found[:2]) == {0, 3}
    assert set(found[2:]) < {1, 2, 4}
    Random(2).check(dataset)
    for refuse in (Random(3).check, functools.partial(Random(3).make, seed=0)):
        with pytest.raises(InputError, match="ipc is 3, but class 0 of made has 2"):
            refuse(dataset)


@pytest.mark.parametrize("ipc", [0, -1, 1.0, True, "1", None])
def test_ipc_is_a_positive_integer(ipc):
    message = f"Random: ipc is {ipc!r}, expected a whole number of at least 1"
    with pytest.raises(InputError, match=re.escape(message)):
        Random(ipc)
