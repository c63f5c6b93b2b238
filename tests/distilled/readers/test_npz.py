"""Tests of `gift_jax.distilled.readers.npz`."""

import ml_dtypes
import numpy as np
import pytest

from gift_jax.data import info
from gift_jax.distilled import read_distilled, save_distilled, zca
from gift_jax.distilled.readers import TrainImagesNeededError, frepo
from gift_jax.runtime.errors import InputError
from tests.distilled.readers.samples import (
    CENTRED,
    FLOATS,
    LABELS,
    PIXELS,
    SMOOTH,
    TINY_CIFAR,
    TRAIN_IMAGES,
    channels_first,
)


class TestNpz:
    def test_kip_standardises_by_the_train_split(self, tmp_path):
        """CIFAR-10's standard deviations are .247, .2435 and .2616."""
        path = tmp_path / "kip_cifar10_ConvNet3_ssize20_nozca_l_noaug_ckpt1000.npz"
        statistics = frepo.STATISTICS["cifar10"]
        np.savez(path, images=statistics.apply(SMOOTH), labels=CENTRED)
        read = read_distilled(path, dataset="cifar10")
        np.testing.assert_allclose(read.pixels(), SMOOTH, atol=1e-6)

    @pytest.mark.parametrize("images", [PIXELS, FLOATS, channels_first(FLOATS)])
    def test_layouts(self, tmp_path, images):
        np.savez(tmp_path / "x.npz", images=images, labels=LABELS, soft_labels=CENTRED)
        read = read_distilled(tmp_path / "x.npz", dataset="cifar10")
        np.testing.assert_array_equal(read.images, FLOATS)
        np.testing.assert_array_equal(read.soft_labels, CENTRED)

    def test_bfloat16_and_suffix(self, tmp_path):
        images = FLOATS.astype(ml_dtypes.bfloat16)
        path = tmp_path / "cifar10.NPZ"
        with path.open("wb") as stream:
            np.savez(stream, images=images, labels=LABELS)
        read = read_distilled(path)
        np.testing.assert_array_equal(read.images, images.astype(np.float32))

    def test_standardised(self, tmp_path):
        images = info.CIFAR.apply(SMOOTH)
        np.savez(tmp_path / "cifar10.npz", images=images, labels=LABELS)
        read = read_distilled(tmp_path / "cifar10.npz")
        np.testing.assert_allclose(read.images, SMOOTH, atol=1e-6)

    def test_kip(self, tmp_path):
        whitening = zca.fit_kip(TRAIN_IMAGES)
        images = whitening.apply(TRAIN_IMAGES[:20] / np.float32(255))
        path = tmp_path / "kip_cifar10_ConvNet3_ssize20_zca_l_noaug_ckpt1000.npz"
        np.savez(path, images=3 * images, labels=CENTRED)
        with pytest.raises(TrainImagesNeededError, match="ZCA-whitened as KIP does"):
            read_distilled(path)
        read = read_distilled(path, dataset=TINY_CIFAR, train_images=TRAIN_IMAGES)
        np.testing.assert_allclose(read.images, 3 * images)
        np.testing.assert_allclose(read.pixels(), whitening.invert(images), atol=1e-5)
        np.testing.assert_array_equal(read.soft_labels, CENTRED)
        np.testing.assert_array_equal(read.labels, LABELS)
        assert read.metadata.method == "kip"
        save_distilled(read, tmp_path / "own")
        again = read_distilled(tmp_path / "own")
        assert again.fingerprint == read.fingerprint
        assert again.preprocess.length == whitening.length
        rows = {"images": images, "labels": CENTRED[:, :9]}
        np.savez(path, **rows)
        with pytest.raises(InputError, match=r"\(20, 9\), expected \(20, 10\)"):
            read_distilled(path, dataset=TINY_CIFAR, train_images=TRAIN_IMAGES)

    def test_malformed(self, tmp_path):
        path = tmp_path / "cifar10.npz"
        for content, message in (
            ({"images": PIXELS}, "no array named 'labels'; found images"),
            (
                {"images": channels_first(FLOATS), "labels": CENTRED},
                "the channels last; .* say source='rfad'",
            ),
            ({"images": FLOATS * 2 - 1, "labels": LABELS}, r"look .* in \[-1, 1\]"),
            ({"images": FLOATS - 0.5, "labels": LABELS}, "look mean-subtracted"),
            ({"images": PIXELS[:, 0], "labels": LABELS}, r"shape \(20, 4, 3\)"),
            ({"images": PIXELS[:, :3], "labels": LABELS}, r"shape \(20, 3, 4, 3\)"),
            ({"images": FLOATS, "labels": np.array([{}] * 20)}, "pickled objects"),
            ({"images": FLOATS, "labels": np.zeros((20, 0), int)}, r"shape \(20, 0\)"),
            ({"images": FLOATS, "labels": np.zeros(20, complex)}, "must be integers"),
            (
                {"images": FLOATS, "labels": LABELS, "dataset": np.array("x" * 10**6)},
                "`dataset` is no name",
            ),
            (
                {"images": FLOATS, "labels": LABELS, "dataset": LABELS},
                "`dataset` is no name of a dataset but a ndarray",
            ),
        ):
            np.savez(path, **content)
            with pytest.raises(ValueError, match=message):
                read_distilled(path)
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(ValueError, match=r"cifar10\.npz.*truncated"):
            read_distilled(path)
        with pytest.raises(ValueError, match="is a directory"):
            read_distilled(tmp_path, "npz", dataset="cifar10")
