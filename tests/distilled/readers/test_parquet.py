"""Tests of `gift_jax.distilled.readers.parquet`."""

import io
import sys
import types

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet as pq

from gift_jax.distilled import read_distilled, write_distilled
from gift_jax.runtime.errors import InputError
from tests.distilled.readers.samples import (
    FLOATS,
    LABELS,
    PIXELS,
    write_gift,
    write_parquet,
)


class TestParquet:
    name = "2025-rethinkdc-imagenet-random-ipc-1"

    def test_file_and_directory(self, tmp_path):
        path = write_parquet(tmp_path / "cifar10.parquet")
        np.testing.assert_array_equal(read_distilled(path).images, FLOATS)
        root = tmp_path / "cifar10"
        write_parquet(
            root / "data/train-00000-of-00002.parquet", PIXELS[:7], LABELS[:7]
        )
        write_parquet(
            root / "data/train-00001-of-00002.parquet", PIXELS[7:], LABELS[7:]
        )
        write_parquet(root / "data/test-00000-of-00001.parquet", PIXELS[:1], [0])
        read = read_distilled(root)
        np.testing.assert_array_equal(read.images, FLOATS)
        np.testing.assert_array_equal(read.labels, LABELS)

    @pytest.mark.parametrize(
        "pattern",
        [
            "{}/0000.parquet",
            "data/{}-00000-of-00001.parquet",
            "plain_text/{}/0000.parquet",
            "cifar10-{}.parquet",
        ],
    )
    def test_only_train_of_several_splits(self, tmp_path, pattern):
        root = tmp_path / "cifar10_distilled"
        write_parquet(root / pattern.format("train"))
        for split in ("test", "validation"):
            write_parquet(root / pattern.format(split), PIXELS[:1], [0])
        np.testing.assert_array_equal(read_distilled(root).images, FLOATS)
        (root / pattern.format("train")).unlink()
        with pytest.raises(InputError, match="splits test, validation, expected train"):
            read_distilled(root)
        one = write_parquet(root / pattern.format("test"))
        assert len(read_distilled(one, dataset="cifar10")) == 20

    def test_splits_of_a_word_that_only_begins_so(self, tmp_path):
        write_parquet(tmp_path / "cifar10/training_free.parquet")
        assert len(read_distilled(tmp_path / "cifar10")) == 20

    @pytest.mark.parametrize("image", ["image", "img"])
    @pytest.mark.parametrize("label", ["class_id", "label", "labels", "fine_label"])
    def test_names_of_columns(self, tmp_path, image, label):
        path = write_parquet(tmp_path / "cifar10.parquet")
        columns = dict(zip((image, label), pq.read_table(path).columns, strict=True))
        columns["coarse_label"] = pa.array([0] * 20)
        pq.write_table(pa.table(columns), path.with_suffix(".PQ"))
        read = read_distilled(path.with_suffix(".PQ"))  # by content
        np.testing.assert_array_equal(read.images, FLOATS)
        np.testing.assert_array_equal(read.labels, LABELS)

    def test_hub_id(self, monkeypatch):
        """Through `datasets`, of which a stand-in has the parts that are used."""

        class Rows:
            column_names = ("image", "class_id")

            def cast_column(self, name, feature):
                assert (name, feature) == ("image", "undecoded")
                return self

            def __getitem__(self, name):
                if name == "class_id":
                    return [label for label in range(1000) for _ in range(1)]
                stream = io.BytesIO()
                Image.new("RGB", (2, 2), (0, 51, 255)).save(stream, "PNG")
                return [{"bytes": stream.getvalue(), "path": None}] * 1000

        def load_dataset(hub_id, split):
            assert (hub_id, split) == (f"he-yang/{self.name}", "train")
            return Rows()

        module = types.ModuleType("datasets")
        module.load_dataset = load_dataset
        module.Image = lambda decode: "decoded" if decode else "undecoded"
        monkeypatch.setitem(sys.modules, "datasets", module)
        read = read_distilled(f"he-yang/{self.name}")
        assert read.metadata.dataset == "imagenet2012"
        assert read.metadata.method == "random"
        np.testing.assert_allclose(read.images[5, 0, 0], [0, 0.2, 1])

    def test_packages_that_are_missing(self, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(ImportError, match=r'pip install -e "\.\[parquet\]"'):
            read_distilled(f"he-yang/{self.name}")
        path = write_parquet(tmp_path / "cifar10.parquet")
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(ImportError, match=r'pip install -e "\.\[parquet\]"'):
            read_distilled(path)

    def test_malformed(self, tmp_path):
        path = write_parquet(tmp_path / "cifar10.parquet", column="other")
        with pytest.raises(ValueError, match=r"columns image, other; expected"):
            read_distilled(path)
        write_parquet(path)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(ValueError, match=r"cifar10\.parquet .*truncated"):
            read_distilled(path)
        with pytest.raises(ValueError, match=r"cifar10\.parquet.* hold no rows"):
            read_distilled(write_parquet(path, [], []))
        (tmp_path / "empty").mkdir()
        with pytest.raises(ValueError, match=r"empty.*no \.parquet file"):
            read_distilled(tmp_path / "empty", "parquet", dataset="cifar10")
        images = [*PIXELS[:-1], PIXELS[-1, :2]]
        with pytest.raises(ValueError, match=r"mixed sizes: row 0 .* row 19 has 2x4"):
            read_distilled(write_parquet(path, images))

    def test_damaged_pages_are_found(self, tmp_path):
        """By the checksums of those that `write_distilled` writes."""
        read = read_distilled(write_gift(tmp_path))
        path = tmp_path / "cifar10.parquet"
        write_distilled(read, path, "parquet")
        whole = path.read_bytes()
        start = whole.index(b"\x89PNG")
        for place in range(start, start + 600, 7):
            damaged = bytearray(whole)
            damaged[place] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(InputError, match="not a readable parquet file"):
                read_distilled(path)

    def test_a_picture_that_is_repeated_is_counted(self, tmp_path):
        path = tmp_path / "cifar10.parquet"
        indices = pa.array(np.zeros(10**4, np.int32))
        images = pa.DictionaryArray.from_arrays(indices, pa.array([bytes(2**16)]))
        pq.write_table(pa.table({"image": images, "label": indices}), path)
        assert path.stat().st_size < 2**17
        with pytest.raises(InputError, match="parquet announces"):
            read_distilled(path)

    def test_rows_without_a_class_or_a_picture(self, tmp_path):
        path = tmp_path / "cifar10.parquet"
        for columns, message in (
            ({"image": [b"x"], "label": [None]}, "rows without a label"),
            ({"image": [b"x"], "label": ["cat"]}, "rows without a label"),
            ({"image": [None], "label": [0]}, "NoneType without encoded bytes"),
            ({"image": [b"x"], "label": [0]}, "row 0 is not a readable image"),
        ):
            pq.write_table(pa.table(columns), path)
            with pytest.raises(InputError, match=message):
                read_distilled(path)
