"""Tests of `gift_jax.distilled.writers.folders`."""

import io

import numpy as np
from PIL import Image

from tests.distilled.writers.samples import by_class, pixel_dataset, written


def test_folders_are_rdeds(tmp_path):
    path = written(tmp_path, pixel_dataset(), "folders_jpg")
    files = sorted(str(file.relative_to(path)) for file in path.rglob("*.*"))
    assert files[:2] == [
        "00000/class00000_id00000.jpg",
        "00000/class00000_id00001.jpg",
    ]
    assert len(files) == 20
    first = by_class(pixel_dataset())[0]
    expected = io.BytesIO()
    picture = Image.fromarray(np.rint(first * 255).astype(np.uint8))
    picture.save(expected, "JPEG")  # Pillow's default, as RDED saves it
    assert (path / files[0]).read_bytes() == expected.getvalue()
