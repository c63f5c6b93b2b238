"""Tests of `gift_jax.data.real` and the modules behind it.

`fixtures/real_golden.npz` holds what torchvision 0.28 makes of some images with
`Resize` and `CenterCrop`.
"""

import io
import json
import pathlib
import shutil
import socket
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn import datasets as sklearn_datasets

from gift_jax.data import image_split, info, prepare, preprocess, real, sources

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"
SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared"
SHARED_TFDS = SHARED / "data" / "tfds"


class TinyShapes(tfds.core.GeneratorBasedBuilder):
    """Image i has value 10 * i everywhere and stored class i % 3."""

    VERSION = tfds.core.Version("1.0.0")
    CLASSES = ("n00000002", "n00000003", "n00000001")

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(8, 8, 3)),
                "label": tfds.features.ClassLabel(names=self.CLASSES),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self, features=features, supervised_keys=("image", "label")
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(6), "test": self._generate_examples(4)}

    def _generate_examples(self, count):
        for i in range(count):
            yield i, {"image": png(np.full((8, 8, 3), 10 * i)), "label": i % 3}


class TinyPlain(TinyShapes):
    """The same with names that are no WordNet ids."""

    CLASSES = ("dog", "zebra", "ant")


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_image(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    for builder in (TinyShapes, TinyPlain):
        builder(data_dir=directory, file_format="array_record").download_and_prepare()
    return directory


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def folders(tmp_path):
    """Two classes of grey 6x6 images: cat 0, 10, 20, dog 100 in train."""
    for i in range(3):
        write_image(tmp_path / "train" / "cat" / f"{i}.png", np.full((6, 6), 10 * i))
    write_image(tmp_path / "train" / "dog" / "deep" / "x.png", np.full((6, 6), 100))
    write_image(tmp_path / "val" / "dog" / "a.PNG", np.full((6, 6), 200))
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    return tmp_path


def split_of(images, labels, **changes):
    fields = {
        "name": "made",
        "num_classes": 3,
        "image_size": images.shape[1],
        "channels": images.shape[-1],
        "normalization": info.IMAGENET,
    }
    made = info.DatasetInfo(**{**fields, **changes})
    return real.ImageSplit(sources.RecordList(images, np.array(labels)), made, "train")


# The validation transform.


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


# ImageSplit.


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
    split = real.ImageSplit(source, made, "train")
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
    split = real.ImageSplit(sources.RecordList(paths, np.zeros(3, int)), made, "train")
    with pytest.raises(OSError, match="image 0 of the 'train' split of made cannot"):
        split.images([0])
    with pytest.raises(ValueError, match="more than 8 bits"):
        split.images([1])
    with pytest.raises(OSError, match="image 2 of the 'train' split of made cannot"):
        split.images([2])


def test_channel_statistics_are_those_of_all_pixels():
    images = np.random.default_rng(0).integers(0, 256, (700, 5, 5, 3), np.uint8)
    found = real.channel_statistics(split_of(images, np.zeros(700, int)))
    pixels = images.reshape(-1, 3) / 255
    np.testing.assert_allclose(found.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.std(0), rtol=1e-12)


# Digits.


def test_digits_are_split_without_overlap():
    digits = real.load_dataset("digits")
    assert (len(digits.train), len(digits.test)) == (1437, 360)
    np.testing.assert_array_equal(np.bincount(digits.test.labels), np.full(10, 36))
    whole = sklearn_datasets.load_digits()
    expected = np.rint(whole.images * 255 / 16).astype(np.uint8)
    rows = {
        (image.tobytes(), label): 0
        for image, label in zip(expected, whole.target, strict=True)
    }
    assert len(rows) == 1797  # no image comes twice, so overlap would be seen
    for split in (digits.train, digits.test):
        for image, label in zip(split.all_images(), split.labels, strict=True):
            rows[image.tobytes(), label] += 1
    assert set(rows.values()) == {1}


def test_digits_are_the_same_every_time():
    first, second = real.load_dataset("digits"), real.load_dataset("digits")
    np.testing.assert_array_equal(first.test.all_images(), second.test.all_images())
    # Fixed: published results depend on it.
    assert first.test.labels[:8].tolist() == [5, 9, 2, 4, 6, 7, 9, 3]


def test_digits_statistics_are_those_in_the_table():
    pixels = real.load_dataset("digits").train.all_images() / 255
    np.testing.assert_allclose(pixels.mean(), info.DIGITS.mean[0], atol=5e-5)
    np.testing.assert_allclose(pixels.std(), info.DIGITS.std[0], atol=5e-5)


# Folders.


def test_class_folders(folders):
    dataset = real.load_dataset(f"folder:{folders}")
    assert (dataset.info.num_classes, dataset.info.image_size) == (2, 6)
    assert (dataset.info.channels, dataset.info.resize) == (1, False)
    assert dataset.train.labels.tolist() == [0, 0, 0, 1]
    assert dataset.train.all_images()[:, 0, 0, 0].tolist() == [0, 10, 20, 100]
    assert dataset.test.labels.tolist() == [1]
    assert dataset.test.images([0])[0, 0, 0, 0] == 200
    values = np.array([0, 10, 20, 100]) / 255
    np.testing.assert_allclose(dataset.info.normalization.mean, values.mean())
    np.testing.assert_allclose(dataset.info.normalization.std, values.std())


def test_folders_of_many_sizes(folders):
    write_image(folders / "train" / "cat" / "large.jpg", np.full((20, 12, 3), 50))
    with pytest.raises(ValueError, match="give image_size"):
        real.load_dataset(f"folder:{folders}")
    given = preprocess.Normalization((0.5,) * 3, (0.25,) * 3)
    dataset = real.load_dataset(f"folder:{folders}", image_size=7, normalization=given)
    assert dataset.info.resize
    assert dataset.info.normalization == given
    assert dataset.train.images([3]).shape == (1, 7, 7, 3)
    assert dataset.train.read(3).shape == (20, 12, 3)


def test_image_size_that_folders_have_already(folders):
    assert not real.load_dataset(f"folder:{folders}", image_size=6).info.resize
    assert real.load_dataset(f"folder:{folders}", image_size=7).info.resize


def test_folders_in_disorder(folders):
    with pytest.raises(ValueError, match="no split 'test'; splits: train, val"):
        real.load_dataset(f"folder:{folders}", test_split="test")
    (folders / "train" / "emu").mkdir()
    with pytest.raises(ValueError, match="emu holds no images"):
        real.load_dataset(f"folder:{folders}")
    shutil.rmtree(folders / "train" / "emu")
    write_image(folders / "val" / "emu" / "a.png", np.zeros((6, 6)))
    with pytest.raises(ValueError, match=r"'emu' .* none of the 2 classes"):
        real.load_dataset(f"folder:{folders}")
    shutil.rmtree(folders / "val")
    (folders / "val").mkdir()
    with pytest.raises(ValueError, match=r"'val' split of .* is empty"):
        real.load_dataset(f"folder:{folders}")
    with pytest.raises(FileNotFoundError, match="no class folders"):
        real.load_dataset(f"folder:{folders}/nowhere")


def test_official_layout_of_tiny_imagenet(tmp_path):
    wnids = [f"n{i:08d}" for i in range(200)]
    for i, wnid in enumerate(wnids):
        image = tmp_path / "train" / wnid / "images" / f"{wnid}_0.JPEG"
        write_image(image, np.full((64, 64, 3), i))
        (tmp_path / "train" / wnid / f"{wnid}_boxes.txt").write_text("")
    # Neither file lists the classes in the order of their indices.
    (tmp_path / "wnids.txt").write_text("\n".join(reversed(wnids)))
    lines = []
    for i, label in enumerate([7, 199, 0]):
        write_image(tmp_path / f"val/images/val_{i}.JPEG", np.full((64, 64, 3), label))
        lines.append(f"val_{i}.JPEG\t{wnids[label]}\t0\t0\t62\t62\n")
    (tmp_path / "val" / "val_annotations.txt").write_text("".join(lines))

    dataset = real.load_dataset("tiny_imagenet", data_dir=tmp_path)
    assert dataset.train.labels.tolist() == list(range(200))
    assert dataset.test.labels.tolist() == [7, 199, 0]
    assert dataset.test.all_images()[:, 0, 0, 0].tolist() == [7, 199, 0]
    with pytest.raises(ValueError, match="as data_dir"):
        real.load_dataset("tiny_imagenet")
    with pytest.raises(ValueError, match="have 64x64 pixels, but image_size is 32"):
        real.load_dataset("tiny_imagenet", data_dir=tmp_path, image_size=32)
    shutil.rmtree(tmp_path / "train" / wnids[3])
    with pytest.raises(ValueError, match=r"200 classes, but .* 199"):
        real.load_dataset("tiny_imagenet", data_dir=tmp_path)


# TFDS.


# Three classes in a cycle: of two, every order is its own inverse.
@pytest.mark.parametrize(
    ("name", "order"), [("tiny_plain", [0, 1, 2]), ("tiny_shapes", [1, 2, 0])]
)
def test_tfds_classes_are_in_order_of_wordnet_ids(tfds_dir, no_network, name, order):
    dataset = real.load_dataset(f"tfds:{name}", data_dir=tfds_dir)
    assert (dataset.info.num_classes, dataset.info.image_size) == (3, 8)
    assert (len(dataset.train), len(dataset.test)) == (6, 4)
    numbers = dataset.train.all_images()[:, 0, 0, 0] // 10
    assert sorted(numbers) == list(range(6))
    np.testing.assert_array_equal(dataset.train.labels, np.array(order)[numbers % 3])
    values = np.arange(6) * 10 / 255
    np.testing.assert_allclose(dataset.info.normalization.std, [values.std()] * 3)


def test_tfds_splits(tfds_dir):
    dataset = real.load_dataset(
        "tfds:tiny_plain", data_dir=tfds_dir, train_split="train[:4]"
    )
    assert len(dataset.train) == 4
    for wrong in ("val", "train[:0]"):
        with pytest.raises(ValueError, match="splits: train, test"):
            real.load_dataset("tfds:tiny_plain", data_dir=tfds_dir, test_split=wrong)
    with pytest.raises(ValueError, match="both 'train'"):
        real.load_dataset("tfds:tiny_plain", data_dir=tfds_dir, test_split="train")


def test_tfds_data_dir_from_the_environment(tfds_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tfds_dir))
    assert len(real.load_dataset("tfds:tiny_plain").train) == 6


@pytest.mark.parametrize(
    "name", ["cifar100", "imagenette", "tfds:nosuch", "tfds:tiny_plain:9.9.9"]
)
def test_dataset_that_is_not_prepared(tfds_dir, no_network, name):
    start = time.monotonic()
    with pytest.raises(FileNotFoundError) as error:
        real.load_dataset(name, data_dir=tfds_dir)
    assert time.monotonic() - start < 5
    message = str(error.value)
    assert f"is not prepared in {tfds_dir}" in message
    assert "python -m gift_jax.data.prepare tfds:" in message
    assert f"--data_dir={tfds_dir}" in message


def test_dataset_in_tfrecord_format(tfds_dir, tmp_path):
    shutil.copytree(tfds_dir / "tiny_plain", tmp_path / "tiny_plain")
    path = tmp_path / "tiny_plain" / "1.0.0" / "dataset_info.json"
    record = {**json.loads(path.read_text()), "fileFormat": "tfrecord"}
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="stored as tfrecord"):
        real.load_dataset("tfds:tiny_plain", data_dir=tmp_path)


def test_tfds_set_without_images(tfds_dir, tmp_path):
    shutil.copytree(tfds_dir / "tiny_plain", tmp_path / "tiny_plain")
    path = tmp_path / "tiny_plain" / "1.0.0" / "dataset_info.json"
    record = json.loads(path.read_text())
    record["supervisedKeys"]["tuple"]["items"].reverse()
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="no image classification set"):
        real.load_dataset("tfds:tiny_plain", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["cifar11", "tfds:", "folder:"])
def test_unknown_name(name):
    with pytest.raises(ValueError, match="unknown dataset"):
        real.load_dataset(name)


# Preparing.


def test_prepare_writes_array_record(tmp_path, monkeypatch, capsys):
    # Images that are encoded already are written without TensorFlow.
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: name)
    prepare.main(["tfds:tiny_plain", f"--data_dir={tmp_path}"])
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"tfds:tiny_plain is in {tmp_path}/tiny_plain/1.0.0"
    )
    assert len(real.load_dataset("tfds:tiny_plain", data_dir=tmp_path).test) == 4
    path = tmp_path / "tiny_plain" / "1.0.0" / "dataset_info.json"
    record = {**json.loads(path.read_text()), "fileFormat": "tfrecord"}
    path.write_text(json.dumps(record))
    with pytest.raises(SystemExit):
        prepare.main(["tfds:tiny_plain", f"--data_dir={tmp_path}"])
    assert "stored as tfrecord" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digits", "nothing to prepare"),
        ("tiny_imagenet", "TFDS does not have tiny_imagenet"),
        ("cifar11", "did you mean 'cifar10'"),
        ("cifar10", "gift_jax[prepare]"),
    ],
)
def test_prepare_explains_what_it_cannot_do(name, message, monkeypatch, capsys):
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as error:
        prepare.main([name])
    assert error.value.code == 2
    assert message in capsys.readouterr().err


# Data of the size that is used.


@pytest.mark.skipif(not SHARED_TFDS.is_dir(), reason="needs ../shared/data/tfds")
def test_cifar10_is_what_the_reference_was_computed_on():
    dataset = real.load_dataset("cifar10", data_dir=SHARED_TFDS)
    with np.load(FIXTURES / "resnet20_cifar10.npz") as golden:
        images, labels = golden["images_uint8"], golden["labels"]
    stored = {
        image.tobytes(): label
        for image, label in zip(
            dataset.test.all_images(), dataset.test.labels, strict=True
        )
    }
    assert [stored[image.tobytes()] for image in images] == labels.tolist()
    np.testing.assert_array_equal(np.bincount(dataset.test.labels), np.full(10, 1000))


@pytest.mark.skipif(not SHARED_TFDS.is_dir(), reason="needs ../shared/data/tfds")
def test_fashion_mnist_has_the_statistics_of_the_table():
    dataset = real.load_dataset("fashion_mnist", data_dir=SHARED_TFDS)
    pixels = dataset.test.all_images() / 255
    assert pixels.shape == (10_000, 28, 28, 1)
    # Those in the table are of the train split.
    np.testing.assert_allclose(pixels.mean(), info.FASHION_MNIST.mean[0], atol=2e-3)
    np.testing.assert_allclose(pixels.std(), info.FASHION_MNIST.std[0], atol=2e-3)
