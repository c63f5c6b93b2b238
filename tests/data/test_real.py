"""Tests of `gift_jax.data.real`: what `load_dataset` makes of names and settings."""

import numpy as np
import pytest

from gift_jax.data import info, preprocess, real
from gift_jax.runtime.errors import InputError
from tests.data.samples import split_of, write_image


def test_class_folders(folders):
    dataset = real.load_dataset(f"folder:{folders}")
    assert (dataset.info.num_classes, dataset.info.image_size) == (2, 6)
    assert (dataset.info.channels, dataset.info.resize) == (1, False)
    assert dataset.train.labels.tolist() == [0, 0, 0, 1]
    assert dataset.train.all_images()[:, 0, 0, 0].tolist() == [0, 10, 20, 100]
    assert dataset.test.labels.tolist() == [1]
    assert dataset.test.images([0])[0, 0, 0, 0] == 200
    values = np.array([0, 10, 20, 100]) / 255
    np.testing.assert_allclose(dataset.info.normalization.mean, values.mean())
    np.testing.assert_allclose(dataset.info.normalization.std, values.std())


def test_one_coloured_image_colours_a_set_also_where_it_is_not_sampled(tmp_path):
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(40):
            pixels = generator.integers(0, 256, (7, 7))
            write_image(tmp_path / split / "a" / f"{number:02}.png", pixels)
    grey = real.load_dataset(f"folder:{tmp_path}")
    assert grey.info.image_shape == (7, 7, 1)
    assert len(grey.info.normalization.mean) == 1
    colour = generator.integers(0, 256, (7, 7, 3))
    write_image(tmp_path / "train" / "a" / "04.png", colour)  # 32 are looked at
    coloured = real.load_dataset(f"folder:{tmp_path}")
    assert coloured.info.image_shape == (7, 7, 3)
    np.testing.assert_array_equal(coloured.train.images([4])[0], colour)
    # Statistics that are given say how many channels are wanted.
    for norm in (preprocess.Normalization((0.5,), (1.0,)), info.IMAGENET):
        given = real.load_dataset(f"folder:{tmp_path}", normalization=norm)
        assert given.info.channels == len(norm.mean)


IMAGENETTE = [f"n{number:08}" for number in range(10)]
CIFAR10 = info.CLASS_NAMES["cifar10"]


def class_folders(root, names, splits=("train", "val")):
    for split in splits:
        for value, name in enumerate(names):
            write_image(root / split / name / "0.png", np.full((32, 32, 3), value))


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("imagenette", IMAGENETTE),
        ("cifar10", CIFAR10),
        ("cifar10", [str(label) for label in range(10)]),
    ],
)
def test_a_set_that_tfds_has_is_read_from_class_folders_too(tmp_path, name, classes):
    class_folders(tmp_path, classes)
    dataset = real.load_dataset(name, data_dir=tmp_path)
    assert dataset.info.name == name
    assert dataset.test.labels.tolist() == list(range(10))
    assert dataset.class_names == tuple(classes)
    assert dataset.train.images([3])[0].max() == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("imagenette", "WordNet ids, as n01440764"),
        ("imagewoof", "WordNet ids, as n01440764"),
        ("cifar10", "airplane, automobile"),
        ("fashion_mnist", "are numbers"),
    ],
)
def test_class_folders_by_other_names_have_another_order(tmp_path, name, message):
    class_folders(tmp_path, [f"class{letter}" for letter in "abcdefghij"])
    with pytest.raises(InputError, match=f"{message}.*folder:"):
        real.load_dataset(name, data_dir=tmp_path)


def test_class_folders_whose_test_split_has_another_name(tmp_path):
    class_folders(tmp_path, CIFAR10, splits=("train", "test"))
    with pytest.raises(InputError, match=r"test, train. Set dataset.test_split"):
        real.load_dataset("cifar10", data_dir=tmp_path)
    dataset = real.load_dataset("cifar10", data_dir=tmp_path, test_split="test")
    assert len(dataset.test) == 10


def test_folders_of_many_sizes(folders):
    write_image(folders / "train" / "cat" / "large.jpg", np.full((20, 12, 3), 50))
    with pytest.raises(ValueError, match="give image_size"):
        real.load_dataset(f"folder:{folders}")
    given = preprocess.Normalization((0.5,) * 3, (0.25,) * 3)
    dataset = real.load_dataset(f"folder:{folders}", image_size=7, normalization=given)
    assert dataset.info.resize
    assert dataset.info.normalization == given
    assert dataset.train.images([3]).shape == (1, 7, 7, 3)
    assert dataset.train.read(3).shape == (20, 12, 3)


def test_test_images_of_another_size_are_seen_too(folders):
    write_image(folders / "val" / "cat" / "large.jpg", np.full((20, 12, 3), 50))
    with pytest.raises(ValueError, match="give image_size"):
        real.load_dataset(f"folder:{folders}")
    dataset = real.load_dataset(f"folder:{folders}", image_size=6)
    assert dataset.info.resize
    assert dataset.test.all_images().shape[1:] == (6, 6, 3)


def test_image_size_that_folders_have_already(folders):
    assert not real.load_dataset(f"folder:{folders}", image_size=6).info.resize
    assert real.load_dataset(f"folder:{folders}", image_size=7).info.resize


@pytest.mark.parametrize("name", ["cifar11", "tfds:", "folder:"])
def test_unknown_name(name):
    with pytest.raises(ValueError, match="unknown dataset"):
        real.load_dataset(name)


def test_channel_statistics_are_those_of_all_pixels():
    images = np.random.default_rng(0).integers(0, 256, (700, 5, 5, 3), np.uint8)
    found = real.channel_statistics(split_of(images, np.zeros(700, int)))
    pixels = images.reshape(-1, 3) / 255
    np.testing.assert_allclose(found.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.std(0), rtol=1e-12)


def test_held_out_images_are_neither_trained_on_nor_tested_on():
    whole = real.load_dataset("digits")
    dataset = real.load_dataset("digits", validation_images=100)
    assert whole.validation is None and whole.with_held_out is None
    np.testing.assert_array_equal(
        dataset.with_held_out.all_images(), whole.train.all_images()
    )
    assert (len(dataset.train), len(dataset.validation)) == (1337, 100)
    held_out, kept, all_of_them = (
        sorted(image.tobytes() for image in split.all_images())
        for split in (dataset.validation, dataset.train, whole.train)
    )
    assert sorted(held_out + kept) == all_of_them
    again = real.load_dataset("digits", validation_images=100).validation
    np.testing.assert_array_equal(again.all_images(), dataset.validation.all_images())
    np.testing.assert_array_equal(dataset.test.labels, whole.test.labels)
    with pytest.raises(InputError, match=r"100000 .* 1437 of digits/train"):
        real.load_dataset("digits", validation_images=100_000)


def test_a_damaged_image_is_named_when_a_set_is_measured(folders):
    path = folders / "train" / "cat" / "1.png"
    path.write_bytes(b"no image")
    with pytest.raises(OSError, match=rf"^image 1 of folder:.*{path}"):
        real.load_dataset(f"folder:{folders}")
