"""Tests of the registry of methods and of `gift_jax.distill.random`."""

import numpy as np
import pytest

from gift_jax import distill
from gift_jax.data import info, preprocess, real, sources


@pytest.fixture(scope="module")
def digits():
    return real.load_dataset("digits")


def members(images):
    return [image.tobytes() for image in images]


def as_bytes(distilled):
    return members(np.rint(distilled.images * 255).astype(np.uint8))


def test_images_are_training_images_of_their_class(digits):
    made = distill.make_random(digits, ipc=7, seed=0)
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
    first = distill.make_random(digits, ipc=3, seed=5)
    second = distill.make_random(real.load_dataset("digits"), ipc=3, seed=5)
    other = distill.make_random(digits, ipc=3, seed=6)
    assert first.images.tobytes() == second.images.tobytes()
    assert first.images.tobytes() != other.images.tobytes()


def test_a_smaller_set_is_part_of_a_larger_one(digits):
    small = distill.make_random(digits, ipc=2, seed=0)
    large = distill.make_random(digits, ipc=50, seed=0)
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
    found = distill.make_random(dataset, ipc=2, seed=0).images[:, 0, 0, 0] * 255
    assert set(found[:2]) == {0, 3}
    assert set(found[2:]) < {1, 2, 4}
    for ipc in (0, 3):
        with pytest.raises(
            ValueError, match=f"ipc is {ipc}, but class 0 of made has 2"
        ):
            distill.make_random(dataset, ipc=ipc, seed=0)


def test_methods_by_name():
    assert distill.get_method("random") is distill.make_random
    assert distill.get_method("rded") is distill.make_rded
    assert not distill.needs_teacher("random")
    assert distill.needs_teacher("rded")
    with pytest.raises(ValueError, match=r"did you mean 'rded'.*one of random, rded"):
        distill.get_method("rdde")
