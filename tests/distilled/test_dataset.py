import json
import pathlib

import hypothesis
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import strategies as st

from gift_jax.data import info
from gift_jax.distilled import zca
from gift_jax.distilled.dataset import (
    ARRAYS_FILE,
    METADATA_FILE,
    DistilledDataset,
    Metadata,
    as_uint8,
    load_distilled,
    read_npz,
    save_distilled,
)

TRAIN_IMAGES = np.load(pathlib.Path(__file__).parents[1] / "fixtures" / "data_zca.npz")[
    "images"
]
METADATA = Metadata("cifar10", 10, "random", "test", learning_rate=0.5)
RNG = np.random.default_rng(0)


def make(**changes):
    fields = {
        "images": RNG.random((20, 4, 4, 3), np.float32),
        "labels": np.repeat(np.arange(10), 2),
        "soft_labels": RNG.normal(size=(20, 10)),
        "preprocess": info.CIFAR,
        "metadata": METADATA,
    }
    return DistilledDataset(**{**fields, **changes})


def assert_same(one, other):
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.labels, other.labels)
    if one.soft_labels is None:
        assert other.soft_labels is None
    else:
        np.testing.assert_array_equal(one.soft_labels, other.soft_labels)
    assert one.metadata == other.metadata


def test_dtypes_and_counts():
    dataset = make(images=RNG.random((20, 4, 4, 3)))
    assert dataset.images.dtype == dataset.soft_labels.dtype == np.float32
    assert dataset.labels.dtype == np.int32
    assert (len(dataset), dataset.ipc) == (20, 2)
    assert make(labels=np.repeat([0, 1], [3, 17])).ipc == 17


def test_inputs_and_pixels():
    dataset = make()
    np.testing.assert_array_equal(dataset.pixels(), dataset.images)
    np.testing.assert_allclose(
        dataset.inputs(),
        (dataset.images - info.CIFAR.mean) / info.CIFAR.std,
        rtol=1e-5,
        atol=1e-6,
    )
    whitening = zca.fit_kornia(TRAIN_IMAGES)
    pixels = TRAIN_IMAGES[:20].astype(np.float32) / 255
    whitened = make(images=whitening.apply(pixels), preprocess=whitening)
    np.testing.assert_array_equal(whitened.inputs(), whitened.images)
    np.testing.assert_allclose(whitened.pixels(), pixels, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"labels": np.zeros(20)}, ValueError, "must be integers, got dtype float64"),
        ({"labels": np.zeros(19, int)}, ValueError, r"\(19,\), expected \(20,\)"),
        ({"labels": np.full(20, 10)}, ValueError, r"\[10, 10\], expected \[0, 9\]"),
        ({"labels": np.full(20, -1)}, ValueError, r"expected \[0, 9\]"),
        ({"images": np.zeros((20, 3, 4, 4))}, ValueError, "channels last"),
        ({"images": np.zeros((0, 4, 4, 3))}, ValueError, "N > 0"),
        ({"images": np.zeros((20, 4, 4, 3), np.uint8)}, ValueError, "divide"),
        ({"images": np.full((20, 4, 4, 3), 2.1)}, ValueError, "undo the normal"),
        ({"images": np.full((20, 4, 4, 3), -1.1)}, ValueError, "ZCA"),
        ({"images": np.full((20, 4, 4, 3), np.inf)}, ValueError, "image 0 holds NaN"),
        ({"soft_labels": np.zeros((20, 9))}, ValueError, r"expected \(20, 10\)"),
        ({"soft_labels": np.full((20, 10), np.nan)}, ValueError, "image 0 holds NaN"),
    ],
)
def test_what_does_not_fit_is_refused(changes, kind, message):
    with pytest.raises(kind, match=message):
        make(**changes)


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


@hypothesis.given(pixels=hnp.arrays(np.uint8, (2, 3, 3, 1)))
def test_8_bits_are_found_again(pixels):
    images = pixels.astype(np.float32) / 255
    np.testing.assert_array_equal(as_uint8(images), pixels)


@hypothesis.given(st.floats(-0.5, 1.5, width=32))
def test_other_floats_are_not_8_bits(value):
    images = np.full((1, 1, 1, 1), value, np.float32)
    found = as_uint8(images)
    levels = np.arange(256, dtype=np.float32) / 255
    assert (found is not None) == (np.float32(value) in levels)


def test_8_bits_are_stored_as_such(tmp_path):
    pixels = RNG.integers(0, 256, (20, 4, 4, 3), np.uint8)
    save_distilled(make(images=pixels.astype(np.float32) / 255), tmp_path)
    stored = read_npz(tmp_path / ARRAYS_FILE)
    np.testing.assert_array_equal(stored["images"], pixels)


@pytest.mark.parametrize("missing", ["std", "zca", "num_classes", "learning_rate"])
def test_damaged_metadata(tmp_path, missing):
    save_distilled(make(), tmp_path)
    path = tmp_path / METADATA_FILE
    record = json.loads(path.read_text())
    del record[missing]
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=f"lacks '{missing}'"):
        load_distilled(tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"distilled\.json is not valid JSON"):
        load_distilled(tmp_path)
    path.write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"distilled\.json holds a JSON list"):
        load_distilled(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        load_distilled(tmp_path)


def test_other_files_under_the_name_of_an_npz(tmp_path):
    path = tmp_path / "x.npz"
    with path.open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(ValueError, match=r"x\.npz is not a readable npz"):
        read_npz(path)
    np.savez(path, images=np.zeros(3))
    content = bytearray(path.read_bytes())
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 10] = 99  # an unknown compression
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.npz is not a readable npz"):
        read_npz(path)
    with pytest.raises(ValueError, match="is a directory"):
        read_npz(tmp_path)


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
