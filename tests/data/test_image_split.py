"""Tests of `gift_jax.data.image_split`: decoding, the validation transform, labels.

`fixtures/real_golden.npz` holds what torchvision 0.28 makes of some images with
`Resize` and `CenterCrop`.
"""

import io
import pathlib
import subprocess
import time
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image, PngImagePlugin

from gift_jax.data import image_split, info, sources
from gift_jax.runtime.errors import InputError
from tests.data.samples import png, split_of

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"


@pytest.mark.parametrize("case", range(5))
def test_resize_and_crop_is_torchvisions(case):
    with np.load(FIXTURES / "real_golden.npz") as golden:
        original = golden[f"original_{case}"]
        expected = golden[f"transformed_{case}"]
    found = image_split.resize_and_crop(Image.fromarray(original), len(expected))
    np.testing.assert_array_equal(np.asarray(found), expected)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(7, 40))
def test_resize_and_crop_gives_the_size_asked_for(width, height, side):
    image = Image.new("L", (width, height), 77)
    found = image_split.resize_and_crop(image, side)
    assert found.size == (side, side)
    assert found.getextrema() == (77, 77)


@pytest.mark.parametrize(("side", "shorter"), [(224, 256), (128, 146), (64, 73)])
def test_resize_matches_the_official_sizes(side, shorter):
    ramp = np.tile(np.arange(shorter, dtype=np.uint8), (shorter, 1))
    # An image of the official intermediate size is only cropped.
    found = np.asarray(image_split.resize_and_crop(Image.fromarray(ramp), side))
    margin = round((shorter - side) / 2)
    np.testing.assert_array_equal(found[0], ramp[0, margin : margin + side])


def test_images_keep_the_order_of_indices():
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] + np.zeros(
        (5, 4, 4, 3), np.uint8
    )
    split = split_of(images, [0, 1, 2, 0, 1])
    chosen = np.array([3, 0, 3])
    np.testing.assert_array_equal(split.images(chosen), images[chosen])
    np.testing.assert_array_equal(split.read(4), images[4])
    loaded = split.all_images()
    np.testing.assert_array_equal(loaded, images)
    assert loaded is split.all_images()
    assert not loaded.flags.writeable
    np.testing.assert_array_equal(split.images(chosen), images[chosen])
    assert split.images([]).shape == (0, 4, 4, 3)
    assert split.labels.dtype == np.int32


def test_more_images_than_are_decoded_at_a_time():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1500, 2, 2, 1), np.uint8)
    split = split_of(images, np.zeros(1500, int))
    np.testing.assert_array_equal(split.images(range(1500)), images)


@pytest.mark.parametrize("index", [-1, 5])
def test_indices_outside_the_split(index):
    split = split_of(np.zeros((5, 4, 4, 3), np.uint8), [0] * 5)
    with pytest.raises(IndexError, match="5 images of the 'train' split of made"):
        split.images([0, index])
    split.all_images()
    with pytest.raises(IndexError):
        split.images([0, index])


@pytest.mark.parametrize("labels", [[0, -1], [0, 3]])
def test_labels_outside_the_classes(labels):
    split = split_of(np.zeros((2, 4, 4, 3), np.uint8), labels)
    with pytest.raises(ValueError, match=r"expected \[0, 2\]"):
        _ = split.labels


def test_labels_of_some_images():
    asked = []

    class Source(sources.RecordList):
        def labels(self, indices):
            asked.append(list(indices))
            return super().labels(indices)

    source = Source(np.zeros((4, 4, 4, 3), np.uint8), np.array([2, 0, 1, -1]))
    made = split_of(np.zeros((1, 4, 4, 3), np.uint8), [0])._info
    split = image_split.ImageSplit(source, made, "train")
    assert split.labels_of([2, 0]).tolist() == [1, 2]
    assert split.labels_of([]).tolist() == []
    assert asked == [[2, 0], []]  # the hidden label was not read
    with pytest.raises(IndexError, match="indices over"):
        split.labels_of([4])
    subset = sources.Subset(source, np.array([1, 2]))
    assert subset.labels([1, 0]).tolist() == [1, 0]


def test_empty_split():
    with pytest.raises(ValueError, match="'train' split of made is empty"):
        split_of(np.zeros((0, 4, 4, 3), np.uint8), [])


def test_images_of_another_size():
    split = split_of(np.zeros((1, 4, 4, 3), np.uint8), [0], image_size=8)
    with pytest.raises(ValueError, match="has 4x4 pixels, expected 8x8"):
        split.images([0])
    assert split.read(0).shape == (4, 4, 3)


def test_colour_conversion():
    grey = split_of(np.full((1, 4, 4, 1), 9, np.uint8), [0], channels=3)
    np.testing.assert_array_equal(grey.images([0]), np.full((1, 4, 4, 3), 9))
    red = np.zeros((1, 4, 4, 3), np.uint8)
    red[..., 0] = 255
    # ITU-R 601-2 luma, as Pillow and torchvision's Grayscale define it.
    luma = split_of(red, [0], channels=1).images([0])
    np.testing.assert_array_equal(luma, np.full((1, 4, 4, 1), 76))


def test_undecodable_and_deep_images(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(deep)
    whole = png(np.random.default_rng(0).integers(0, 256, (4, 4, 3)))
    (tmp_path / "truncated.png").write_bytes(whole[:-30])
    paths = [tmp_path / name for name in ("broken.png", "deep.png", "truncated.png")]
    made = info.DatasetInfo("made", 3, 4, 3, info.IMAGENET)
    split = image_split.ImageSplit(
        sources.RecordList(paths, np.zeros(3, int)), made, "train"
    )
    with pytest.raises(OSError, match="image 0 of the 'train' split of made cannot"):
        split.images([0])
    with pytest.raises(ValueError, match="more than 8 bits"):
        split.images([1])
    with pytest.raises(OSError, match=r"image 2 of .* cannot .*/truncated\.png: "):
        split.images([2])


# What hostile and damaged files are.

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 4 4
%%EndComments
(called) print
%%EOF
"""


def one_file(tmp_path, content, name="image.jpg"):
    path = tmp_path / name
    path.write_bytes(content)
    made = info.DatasetInfo("made", 3, 4, 3, info.IMAGENET)
    source = sources.RecordList([path], np.zeros(1, int))
    return image_split.ImageSplit(source, made, "train")


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("as_bytes", [False, True])
def test_postscript_is_never_run(tmp_path, monkeypatch, as_bytes):
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a))
    monkeypatch.setattr(
        EpsImagePlugin, "Ghostscript", lambda *a, **k: started.append(a)
    )
    # Without a list of formats Pillow takes it for what it is.
    assert Image.open(io.BytesIO(EPS)).format == "EPS"
    if as_bytes:
        with (
            pytest.raises(OSError, match="image 7 cannot be decoded: cannot identify"),
            image_split.open_image(EPS, "image 7") as image,
        ):
            image.load()
    else:
        with pytest.raises(OSError, match=r"cannot be decoded: .*image\.jpg"):
            one_file(tmp_path, EPS).images([0])
    assert not started


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP", "GIF"])
def test_documented_formats_are_read_by_their_content(tmp_path, kind):
    image = Image.fromarray(np.full((4, 4, 3), 255, np.uint8))
    split = one_file(tmp_path, encoded(image, kind), "any.jpg")
    np.testing.assert_array_equal(split.images([0]), np.full((1, 4, 4, 3), 255))


@pytest.mark.parametrize("kind", ["TIFF", "PPM", "TGA", "ICO", "PDF"])
def test_other_formats_are_not(tmp_path, kind):
    image = Image.fromarray(np.full((4, 4, 3), 255, np.uint8))
    with pytest.raises(OSError, match=r"cannot be decoded: .*image\.jpg"):
        one_file(tmp_path, encoded(image, kind)).images([0])


def text_bomb():
    """A PNG whose comment unpacks to 100 MB."""
    metadata = PngImagePlugin.PngInfo()
    metadata.add_text("comment", " " * 100_000_000, zip=True)
    return encoded(Image.new("RGB", (4, 4)), "PNG", pnginfo=metadata)


def pixel_bomb():
    """A PNG of a few bytes that announces 60,000 x 60,000 pixels."""
    small = bytearray(png(np.zeros((4, 4, 3))))
    small[16:24] = (60_000).to_bytes(4) * 2
    small[29:33] = zlib.crc32(bytes(small[12:29])).to_bytes(4)
    return bytes(small)


@pytest.mark.parametrize(
    ("bomb", "message"),
    [
        (text_bomb, "too large"),
        (pixel_bomb, "exceeds limit"),
        (bytes, "cannot identify"),
    ],
)
def test_bombs_are_one_line_that_names_the_file(tmp_path, bomb, message):
    split = one_file(tmp_path, bomb(), "bomb.png")
    start = time.process_time()
    with pytest.raises(OSError, match="(?i)" + message) as error:
        split.images([0])
    assert time.process_time() - start < 2
    text = str(error.value)
    assert text.count(str(tmp_path / "bomb.png")) == 1 and "\n" not in text


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "BMP", "WEBP", "GIF"]), st.data())
def test_damaged_bytes_are_pixels_or_one_error(kind, data):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    content = bytearray(encoded(Image.fromarray(pixels), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
            st.integers(0, 255)
        )
    content = bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        with image_split.open_image(content, "it") as image:
            image_split.convert(image, 3, "it").load()
    except (OSError, InputError) as error:
        assert str(error).startswith("it ")
