import dataclasses
import io
import pathlib

import hypothesis
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from gift_jax.data import info
from gift_jax.distilled import load_distilled, save_distilled, zca
from gift_jax.distilled.dataset import DistilledDataset, Metadata, as_uint8
from gift_jax.runtime.errors import InputError

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


def test_what_a_notebook_shows():
    dataset = make()
    assert repr(dataset) == (
        "DistilledDataset(random of cifar10: 20 images of shape (4, 4, 3), "
        "10 classes, IPC 2, with soft labels)"
    )
    shown = np.asarray(Image.open(io.BytesIO(dataset._repr_png_())))
    # A row a class; 8 times enlarged, with lines of two pixels between.
    assert shown.shape == (10 * 34 + 2, 2 * 34 + 2, 3)
    first = np.rint(dataset.images[0] * 255)
    np.testing.assert_array_equal(shown[2:34:8, 2:34:8], first)


def test_known_pixels_are_kept_however_far_out_of_the_range(tmp_path):
    dataset = make()
    far = dataset.images.copy()
    far[::2], far[1::2] = -2, 3
    with pytest.raises(InputError, match="expected pixels"):
        dataclasses.replace(dataset, images=far)
    made = dataclasses.replace(dataset, images=far, are_pixels=True)
    save_distilled(made, tmp_path / "own")
    assert load_distilled(tmp_path / "own").fingerprint == made.fingerprint
    assert made.of_classes([1]).images.max() == 3


def test_some_classes_come_one_after_the_other():
    dataset = make()
    some = dataset.of_classes((7, 0, 3))
    assert some.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert some.metadata.num_classes == 3 and some.ipc == 2
    rows = [14, 15, 0, 1, 6, 7]
    np.testing.assert_array_equal(some.images, dataset.images[rows])
    np.testing.assert_array_equal(
        some.soft_labels, dataset.soft_labels[rows][:, [7, 0, 3]]
    )
    # Two classes of which there are images, and labels of four.
    wider = dataset.of_classes((0, 3), (7, 0, 3, 9))
    assert wider.labels.tolist() == [1, 1, 2, 2]
    assert wider.soft_labels.shape == (4, 4)
    assert some.fingerprint != wider.fingerprint


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
        ({"images": np.full((20, 4, 4, 3), 2.1)}, ValueError, "divided by 255"),
        ({"images": np.full((20, 4, 4, 3), -1.1)}, ValueError, "undo it"),
        ({"images": np.full((20, 4, 4, 3), np.inf)}, ValueError, "image 0 holds NaN"),
        ({"soft_labels": np.zeros((20, 9))}, ValueError, r"expected \(20, 10\)"),
        ({"soft_labels": np.full((20, 10), np.nan)}, ValueError, "image 0 holds NaN"),
        ({"soft_labels": np.full((20, 10), "a")}, ValueError, "soft labels have dtype"),
        ({"images": np.full((20, 4, 0, 3), 0.5)}, ValueError, "channels last"),
        ({"preprocess": info.DIGITS}, ValueError, "expected 3 numbers each"),
        (
            {"preprocess": dataclasses.replace(info.CIFAR, mean=(0.1, 0.2, np.nan))},
            ValueError,
            r"channel mean \(0.1, 0.2, nan\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes, kind, message):
    with pytest.raises(kind, match=message):
        make(**changes)


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


def test_the_fingerprint_is_of_what_students_are_trained_on():
    one = make()
    same = dataclasses.replace(one, metadata=Metadata("x", 10, "y", "z"))
    assert dataclasses.replace(one).fingerprint == same.fingerprint == one.fingerprint
    images, labels, soft_labels = (
        one.images.copy(),
        one.labels[::-1].copy(),
        one.soft_labels.copy(),
    )
    images[3, 0, 0, 0] += 2e-7
    soft_labels[-1, -1] += 1e-6
    others = [
        dataclasses.replace(one, images=images),
        dataclasses.replace(one, images=one.images.transpose(0, 2, 1, 3)),
        dataclasses.replace(one, labels=labels),
        dataclasses.replace(one, soft_labels=soft_labels),
        dataclasses.replace(one, soft_labels=None),
        dataclasses.replace(one, preprocess=info.IMAGENET),
    ]
    whitening = zca.fit_kornia(TRAIN_IMAGES)
    others.append(dataclasses.replace(one, preprocess=whitening))
    center = whitening.center + np.float32(1e-6)
    moved = dataclasses.replace(whitening, center=center)
    others.append(dataclasses.replace(one, preprocess=moved))
    found = {dataset.fingerprint for dataset in [one, *others]}
    assert len(found) == 1 + len(others)
    assert all(len(fingerprint) == 16 for fingerprint in found)


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), "0.1"])
def test_a_learning_rate_is_a_number(rate):
    with pytest.raises(InputError, match="learning"):
        Metadata("cifar10", 10, "datm", "test", learning_rate=rate)
