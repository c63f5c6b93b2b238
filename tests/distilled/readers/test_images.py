"""Decoding of image files, in the documented formats only."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from gift_jax.distilled.readers import images
from gift_jax.runtime import unpacking
from gift_jax.runtime.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8)


def encoded(pixels, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


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
    with pytest.raises(InputError, match="picture is not a readable image") as caught:
        images.stack([("picture", content)], 3)
    assert "object at" not in str(caught.value)


def announcing(width, height):
    """A small PNG whose header says another size, its checksum included."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(header))
    whole = encoded(PIXELS[0])
    return whole[:12] + header + checksum + whole[33:]


def test_sizes_are_checked_before_pixels_are_unpacked(monkeypatch):
    def unpacked(*_):
        raise AssertionError("pixels were unpacked")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "convert", unpacked)
        with pytest.raises(
            unpacking.TooLargeError, match="a, the first of 1 of 9000x9000 pixels, ann"
        ):
            images.stack([("a", announcing(9000, 9000))], 3)
    with pytest.raises(InputError, match="a has 4x5 pixels, b has 9000x9000"):
        images.stack([("a", encoded(PIXELS[0])), ("b", announcing(9000, 9000))], 3)


def test_many_images_together_are_checked():
    flat = encoded(np.zeros((1000, 1000, 3), np.uint8))
    sources = [(f"image {i}", flat) for i in range(12)]
    with pytest.raises(unpacking.TooLargeError, match="announces 36,000,000 bytes in"):
        images.stack(sources, 3)
    read = images.stack(sources, 3, max_bytes=36_000_000)
    assert read.shape == (12, 1000, 1000, 3)
    assert not read.any()


def test_any_damage_of_a_png_is_found():
    """Pillow alone compares no checksum of the pixels' own chunk."""
    whole = encoded(PIXELS[0])
    end = len(whole) - 12
    for place in (*range(end), *range(end + 4, end + 8)):  # all but the size of the end
        damaged = bytearray(whole)
        damaged[place] ^= 16
        with pytest.raises(InputError, match="a is not a readable image"):
            images.stack([("a", bytes(damaged))], 3)
