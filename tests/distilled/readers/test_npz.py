"""Tests of `gift_jax.distilled.readers.npz`."""

import numpy as np
import pytest

from gift_jax.distilled import read_distilled
from tests.distilled.readers.samples import (
    CENTRED,
    FLOATS,
    LABELS,
    PIXELS,
    channels_first,
)


class TestNpz:
    @pytest.mark.parametrize("images", [PIXELS, FLOATS, channels_first(FLOATS)])
    def test_layouts(self, tmp_path, images):
        np.savez(tmp_path / "x.npz", images=images, labels=LABELS, soft_labels=CENTRED)
        read = read_distilled(tmp_path / "x.npz", dataset="cifar10")
        np.testing.assert_array_equal(read.images, FLOATS)
        np.testing.assert_array_equal(read.soft_labels, CENTRED)

    def test_malformed(self, tmp_path):
        path = tmp_path / "cifar10.npz"
        for content, message in (
            ({"images": PIXELS}, "no array named 'labels'; found images"),
            ({"images": FLOATS, "labels": CENTRED}, "say source='rfad'"),
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
