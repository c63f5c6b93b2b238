"""Tests of `gift_jax.distilled.writers.parquet`."""

import json

import numpy as np
import pytest
from pyarrow import parquet as pq

from tests.distilled.writers.samples import LABELS, TRAIN_IMAGES, pixel_dataset, written


def test_parquet_says_that_its_column_is_an_image(tmp_path):
    schema = pq.read_schema(written(tmp_path, pixel_dataset(), "parquet"))
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}


def test_the_library_datasets_reads_parquet(tmp_path):
    datasets = pytest.importorskip("datasets")
    path = written(tmp_path, pixel_dataset(), "parquet")
    rows = datasets.load_dataset(
        "parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "c")
    )
    assert rows[3]["class_id"] == LABELS[3]
    np.testing.assert_array_equal(np.array(rows[3]["image"]), TRAIN_IMAGES[3])
