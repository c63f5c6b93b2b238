"""Stored distilled datasets, and what is said of damaged ones."""

import json
import os

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from gift_jax.data import info
from gift_jax.distilled import files, zca
from gift_jax.distilled.files import (
    ARRAYS_FILE,
    METADATA_FILE,
    load_distilled,
    save_distilled,
)
from gift_jax.runtime.errors import InputError
from gift_jax.runtime.npz import read_npz
from tests.distilled.test_dataset import RNG, TRAIN_IMAGES, assert_same, make


@pytest.mark.parametrize("soft_labels", [None, RNG.normal(size=(20, 10))])
def test_saved_and_loaded(tmp_path, soft_labels):
    dataset = make(soft_labels=soft_labels)
    save_distilled(dataset, tmp_path / "a")
    loaded = load_distilled(tmp_path / "a")
    assert_same(loaded, dataset)
    assert loaded.preprocess == info.CIFAR


def test_whitened_saved_and_loaded(tmp_path):
    whitening = zca.fit_kornia(TRAIN_IMAGES)
    images = whitening.apply(TRAIN_IMAGES[:20].astype(np.float32) / 255)
    dataset = make(images=images, preprocess=whitening)
    save_distilled(dataset, tmp_path)
    loaded = load_distilled(tmp_path)
    assert_same(loaded, dataset)
    np.testing.assert_array_equal(loaded.preprocess.matrix, whitening.matrix)
    np.testing.assert_array_equal(loaded.pixels(), dataset.pixels())


def test_8_bits_are_stored_as_such(tmp_path):
    pixels = RNG.integers(0, 256, (20, 4, 4, 3), np.uint8)
    save_distilled(make(images=pixels.astype(np.float32) / 255), tmp_path)
    stored = read_npz(tmp_path / ARRAYS_FILE)
    np.testing.assert_array_equal(stored["images"], pixels)


def rewrite(path, **changes):
    """Changes fields of the JSON as someone who knows its checksum; None removes."""
    record = json.loads(path.read_text()) | changes
    del record["checksum"]
    record = {name: value for name, value in record.items() if value is not None}
    record["checksum"] = files._checksum(record)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"std": None}, "lacks 'std'"),
        ({"zca": None}, "lacks 'zca'"),
        ({"num_classes": None}, "lacks 'num_classes'"),
        ({"fingerprint": None}, "lacks 'fingerprint'"),
        ({"mean": 3}, "lacks 'int' object is not iterable"),
        ({"mean": [0.5]}, "differ in length"),
        ({"mean": [0.5], "std": [0.2]}, "expected 3 numbers each"),
        ({"mean": ["a", 0, 0]}, "could not convert"),
        ({"mean": [1e999, 0, 0]}, "is not valid JSON"),
        ({"zca": True}, "lacks 'zca_center'"),
        ({"num_classes": "10"}, "num_classes is '10', expected <class 'int'>"),
        ({"num_classes": 9}, r"\[0, 9\], expected \[0, 8\]"),
        ({"method": [[]]}, "method is"),
        ({"dataset": {}}, "dataset is"),
        ({"std": [0.2, 0.2, 0.3]}, "do not belong together"),
        ({"fingerprint": "0" * 16}, "was written for 0000000000000000"),
    ],
)
def test_malformed_metadata(tmp_path, changes, message):
    save_distilled(make(), tmp_path)
    rewrite(tmp_path / METADATA_FILE, **changes)
    with pytest.raises(InputError, match=message) as caught:
        load_distilled(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("[1, 2]", "holds a JSON list"),
        ("[" * 10**5, "is not valid JSON"),
        ('{"mean": NaN}', "NaN is no number"),
        ("\udcff", "is not valid JSON"),
        ("{}", "has not the checksum"),
    ],
)
def test_damaged_metadata(tmp_path, content, message):
    save_distilled(make(), tmp_path)
    path = tmp_path / METADATA_FILE
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=rf"distilled\.json {message}|{message}"):
        load_distilled(tmp_path)


def test_metadata_that_is_no_file(tmp_path):
    save_distilled(make(), tmp_path)
    path = tmp_path / METADATA_FILE
    path.unlink()
    with pytest.raises(FileNotFoundError):
        load_distilled(tmp_path)
    os.mkfifo(path)  # which would be waited for
    with pytest.raises(FileNotFoundError, match="is no file"):
        load_distilled(tmp_path)


def test_changed_metadata_is_found(tmp_path):
    save_distilled(make(), tmp_path)
    path = tmp_path / METADATA_FILE
    text = path.read_text()
    assert '"learning_rate": 0.5' in text
    path.write_text(text.replace('"learning_rate": 0.5', '"learning_rate": 0.4'))
    with pytest.raises(InputError, match="has not the checksum"):
        load_distilled(tmp_path)


def test_arrays_of_another_dataset_are_found(tmp_path):
    save_distilled(make(), tmp_path / "a")
    save_distilled(make(), tmp_path / "b")
    (tmp_path / "a" / ARRAYS_FILE).replace(tmp_path / "b" / ARRAYS_FILE)
    with pytest.raises(InputError, match="do not belong together"):
        load_distilled(tmp_path / "b")


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(share=st.floats(0, 0.999))
def test_truncated_arrays(tmp_path_factory, share):
    directory = tmp_path_factory.mktemp("cut")
    save_distilled(make(), directory)
    path = directory / ARRAYS_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"distilled\.npz is not a readable npz"):
        load_distilled(directory)
