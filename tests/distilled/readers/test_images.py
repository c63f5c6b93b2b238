"""Decoding of image files, in the documented formats only."""

import io

import numpy as np
import pytest
from PIL import Image

from gift_jax.distilled.readers import images
from gift_jax.runtime.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8)


def encoded(pixels, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_pixels_come_back_in_order(kind):
    sources = [(f"image {i}", encoded(image, kind)) for i, image in enumerate(PIXELS)]
    np.testing.assert_array_equal(images.stack(sources, 3), PIXELS)


def test_images_are_converted_to_the_channels_of_the_dataset():
    grey = images.stack([("a", encoded(PIXELS[0]))], 1)
    expected = np.asarray(Image.fromarray(PIXELS[0]).convert("L"))
    np.testing.assert_array_equal(grey[0, ..., 0], expected)


def test_mixed_sizes_name_both_images():
    sources = [("a", encoded(PIXELS[0])), ("b", encoded(PIXELS[1][:3]))]
    with pytest.raises(InputError, match="a has 4x5 pixels, b has 3x5"):
        images.stack(sources, 3)


@pytest.mark.parametrize("content", [b"", b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_image_is_one_error_and_starts_no_program(content, monkeypatch):
    def started(*args, **kwargs):
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", started)
    with pytest.raises(InputError, match="picture is not a readable image"):
        images.stack([("picture", io.BytesIO(content))], 3)
