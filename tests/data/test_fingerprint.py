"""Fingerprints of real images: what changes them, and what does not."""

import shutil

import numpy as np
import pytest
from PIL import Image

from gift_jax.data import fingerprint, real


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in range(2):
            place = tmp_path / "set" / split / f"class{label}"
            place.mkdir(parents=True)
            for number in range(3):
                pixels = rng.integers(0, 256, (4, 4, 3), np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    return tmp_path / "set"


def of(folder):
    return real.load_dataset(f"folder:{folder}").fingerprint


def test_it_is_that_of_contents_wherever_they_lie(folder, tmp_path):
    before = of(folder)
    shutil.copytree(folder, tmp_path / "other")
    assert of(tmp_path / "other") == before
    shutil.move(folder, tmp_path / "moved")
    assert of(tmp_path / "moved") == before


@pytest.mark.parametrize("split", ["train", "val"])
def test_one_pixel_is_noticed_at_equal_size_and_time(folder, split):
    before = of(folder)
    path = folder / split / "class0" / "1.png"
    whole = path.read_bytes()
    pixels = np.asarray(Image.open(path)).copy()
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(path)
    assert of(folder) != before
    path.write_bytes(whole)
    assert of(folder) == before


def test_order_and_labels_are_noticed(folder):
    before = of(folder)
    # The same files, of other classes.
    train = folder / "train"
    (train / "class0").rename(train / "x")
    (train / "class1").rename(train / "class0")
    (train / "x").rename(train / "class1")
    assert of(folder) != before


def test_held_out_images_and_statistics_are_noticed():
    sets = [
        real.load_dataset("digits"),
        real.load_dataset("digits", validation_images=100),
        real.load_dataset("digits", normalization=real.preprocess.Normalization(
            (0.5,), (0.5,)
        )),
    ]  # fmt: skip
    assert len({data.fingerprint for data in sets}) == 3
    assert sets[0].fingerprint == real.load_dataset("digits").fingerprint


def test_of_large_files_blocks_at_equal_distances_count(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "SAMPLED_BEYOND", 1000)
    monkeypatch.setattr(fingerprint, "_BLOCK", 10)
    monkeypatch.setattr(fingerprint, "_SAMPLES", 10)
    path = tmp_path / "shard"
    path.write_bytes(bytes(2000))
    before = fingerprint.of_files([path])
    for position, is_noticed in ((0, True), (1999, True), (100, False)):
        content = bytearray(2000)
        content[position] = 1
        path.write_bytes(content)
        assert (fingerprint.of_files([path]) != before) == is_noticed
    path.write_bytes(bytes(2001))
    assert fingerprint.of_files([path]) != before


def test_arrays_texts_and_numbers_are_told_apart():
    found = [
        fingerprint.of(np.zeros(4, np.uint8)),
        fingerprint.of(np.zeros((2, 2), np.uint8)),
        fingerprint.of(np.zeros(1, np.float32)),
        fingerprint.of("a", "b"),
        fingerprint.of("ab"),
        fingerprint.of("a\nb"),
        fingerprint.of("1"),
        fingerprint.of(1),
    ]
    assert len(set(found)) == len(found)
    assert all(len(digits) == 16 for digits in found)


def test_of_tfds_it_is_that_of_files_and_of_what_is_taken_of_them(tfds_dir, tmp_path):
    def of_set(data_dir, **settings):
        return real.load_dataset("tfds:tiny_plain", data_dir=data_dir, **settings)

    before = of_set(tfds_dir).fingerprint
    shutil.copytree(tfds_dir / "tiny_plain", tmp_path / "tiny_plain")
    assert of_set(tmp_path).fingerprint == before
    assert of_set(tmp_path, train_split="train[:4]").fingerprint != before
    (shard,) = (tmp_path / "tiny_plain" / "1.0.0").glob("*-test.*")
    train, test = (getattr(of_set(tmp_path), s).fingerprint for s in ("train", "test"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert of_set(tmp_path).train.fingerprint == train
    assert of_set(tmp_path).test.fingerprint != test
