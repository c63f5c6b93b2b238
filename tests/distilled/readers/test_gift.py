"""Tests of `gift_jax.distilled.readers.gift`."""

import re

import numpy as np
import pytest

from gift_jax import data
from gift_jax.data import info
from gift_jax.distilled import read_distilled
from gift_jax.torch_io import torch_files
from tests.distilled.readers.samples import (
    CENTRED,
    FLOATS,
    LABELS,
    SHARED,
    channels_first,
    write_gift,
)


class TestGift:
    def test_reads_values(self, tmp_path):
        for path in (write_gift(tmp_path), tmp_path):
            read = read_distilled(path)
            np.testing.assert_array_equal(read.images, FLOATS)
            np.testing.assert_array_equal(read.labels, LABELS)
            assert read.metadata.dataset == "cifar10"
            assert read.metadata.hard_labels == "class"
            assert read.preprocess == info.CIFAR
            assert read.soft_labels is None

    def test_squeezes_labels_and_keeps_overshoot(self, tmp_path):
        images = channels_first(FLOATS) * 1.1 - 0.05  # as CIM's may be
        path = write_gift(tmp_path, data=images, label=LABELS[:, None])
        read = read_distilled(path)
        assert read.labels.shape == (20,)
        np.testing.assert_allclose(channels_first(read.images), images, atol=1e-7)

    @pytest.mark.parametrize("dtype", [np.float16, np.float64])
    def test_other_floats(self, tmp_path, dtype):
        images = channels_first(FLOATS).astype(dtype)
        read = read_distilled(write_gift(tmp_path, data=images))
        assert read.images.dtype == np.float32
        np.testing.assert_allclose(read.images, FLOATS, atol=1e-3)

    @pytest.mark.parametrize(
        ("official", "name"),
        [
            ("tinyimagenet", "tiny_imagenet"),
            ("imagenet-1k", "imagenet2012"),
            ("imagenet-nette", "imagenette"),
            ("imagenet-woof", "imagewoof"),
            ("fashionmnist", "fashion_mnist"),
        ],
    )
    def test_official_names(self, official, name):
        assert data.dataset_info(official).name == name

    def test_dataset_inside_wins_over_nothing_else(self, tmp_path):
        path = write_gift(tmp_path)
        assert read_distilled(path, dataset="CIFAR-10").metadata.num_classes == 10
        with pytest.raises(
            ValueError, match="'cifar10', but dataset='digits'"
        ) as caught:
            read_distilled(path, dataset="digits")
        assert "config.dataset.name" in str(caught.value)

    @pytest.mark.parametrize(
        ("changes", "kind", "message"),
        [
            ({"label": LABELS.astype(np.float32)}, ValueError, "must be integers"),
            ({"label": LABELS[:7]}, ValueError, r"shape \(7,\)"),
            ({"label": LABELS + 1}, ValueError, r"\[1, 10\], expected \[0, 9\]"),
            ({"label": np.minimum(LABELS, 8)}, ValueError, "no image of class 9"),
            ({"label": 3}, ValueError, "must be tensors"),
            ({"data": FLOATS}, ValueError, r"\(20, 4, 4, 3\), expected \(N, 3, H, W\)"),
            ({"data": channels_first(FLOATS)[0]}, ValueError, r"\(3, 4, 4\)"),
            ({"data": channels_first(FLOATS) * 255}, ValueError, "divide by 255"),
            ({"data": channels_first(FLOATS) * 6 - 3}, ValueError, "normalisation"),
            ({"data": channels_first(FLOATS) * np.nan}, ValueError, "NaN"),
            ({"dataset": ["cifar10"]}, ValueError, "`dataset` is no name"),
            ({"dataset": "cifar11"}, ValueError, "did you mean 'cifar10'"),
            ({"dataset": "digits"}, ValueError, r"expected \(N, 1, H, W\) for digits"),
        ],
    )
    def test_malformed(self, tmp_path, changes, kind, message):
        path = write_gift(tmp_path, **changes)
        with pytest.raises(kind, match=message) as caught:
            read_distilled(path)
        assert str(path) in str(caught.value)

    @pytest.mark.parametrize("name", ["cifar10", "imagenette"])
    @pytest.mark.parametrize("overshoot", [0, 0.05])
    def test_pixels_with_soft_labels_stay_pixels(self, tmp_path, name, overshoot):
        images = channels_first(FLOATS) * (1 + 2 * overshoot) - np.float32(overshoot)
        path = write_gift(tmp_path, dataset=name, data=images, label=CENTRED)
        read = read_distilled(path)
        np.testing.assert_array_equal(channels_first(read.images), images)
        np.testing.assert_array_equal(read.soft_labels, CENTRED)
        np.testing.assert_array_equal(read.labels, LABELS)
        assert read.metadata.method == "gift"

    def test_standardised_with_soft_labels_is_datms(self, tmp_path):
        inputs = channels_first(info.IMAGENET.apply(FLOATS))
        path = write_gift(tmp_path, dataset="imagenette", data=inputs, label=CENTRED)
        read = read_distilled(path)
        np.testing.assert_allclose(read.images, FLOATS, atol=1e-6)
        assert read.metadata.method == "datm"

    def test_wrong_keys(self, tmp_path):
        torch_files.save_torch(tmp_path / "data.pt", {"model": {}})
        with pytest.raises(ValueError, match=r"data\.pt holds .*'model'.* expected"):
            read_distilled(tmp_path)

    def test_truncated_zip(self, tmp_path):
        path = write_gift(tmp_path)
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(ValueError, match=r"data\.pt.*truncated"):
            read_distilled(tmp_path)

    @pytest.mark.parametrize("name", ["data.pt", "cifar10.npz"])
    def test_damaged_directory_of_a_zip(self, tmp_path, name):
        path = write_gift(tmp_path)
        path = path.rename(tmp_path / name)
        content = bytearray(path.read_bytes())
        start = content.index(b"PK\x01\x02")
        content[start : start + 4] = b"oops"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{re.escape(name)}.*truncated"):
            read_distilled(path)

    @pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
    def test_the_official_evaluators_file(self):
        read = read_distilled(SHARED / "data/distilled/cifar10_conv3_rded_ipc10")
        assert read.images.shape == (100, 32, 32, 3)
        assert read.ipc == 10
        assert read.metadata.method == "rded"
        np.testing.assert_array_equal(read.labels, np.repeat(np.arange(10), 10))
