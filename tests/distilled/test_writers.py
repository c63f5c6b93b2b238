import dataclasses
import io
import json
import pathlib

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet as pq

from gift_jax import data
from gift_jax.data import info
from gift_jax.distilled import zca
from gift_jax.torch_io import torch_files

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"
TRAIN_IMAGES = np.load(FIXTURES / "data_zca.npz")["images"]
TINY_CIFAR = info.DatasetInfo("cifar10", 10, 4, 3, info.CIFAR)

RNG = np.random.default_rng(0)
LABELS = RNG.permutation(np.repeat(np.arange(10), 2)).astype(np.int32)
LOGITS = (RNG.normal(size=(20, 10)) + 9 * np.eye(10)[LABELS]).astype(np.float32)


def pixel_dataset(images=None, soft_labels=LOGITS):
    if images is None:
        images = TRAIN_IMAGES[:20].astype(np.float32) / 255
    return data.DistilledDataset(
        images=images,
        labels=LABELS,
        soft_labels=soft_labels,
        preprocess=info.CIFAR,
        metadata=data.Metadata("cifar10", 10, "rded", "test"),
    )


def whitened_dataset(method):
    whitening = zca.fit_kornia(TRAIN_IMAGES)
    labels = np.repeat(np.arange(10), 2).astype(np.int32)
    return data.DistilledDataset(
        images=whitening.apply(TRAIN_IMAGES[:20].astype(np.float32) / 255),
        labels=labels,
        soft_labels=(9 * np.eye(10)[labels]).astype(np.float32),
        preprocess=whitening,
        metadata=data.Metadata("cifar10", 10, method, "test"),
    )


def written(tmp_path, dataset, format):
    path = tmp_path / {"gift": "data.pt", "parquet": "cifar10.parquet"}.get(
        format, "cifar10.npz" if format == "npz" else "cifar10"
    )
    data.write_distilled(dataset, path, format)
    assert list(tmp_path.iterdir()) == [path]
    return path


def by_class(dataset):
    """Images in the order that class folders give them."""
    return dataset.images[np.argsort(dataset.labels, kind="stable")]


@pytest.mark.parametrize("format", ["gift", "npz", "parquet", "folders"])
def test_round_trip_of_8_bits(tmp_path, format):
    dataset = pixel_dataset()
    read = data.read_distilled(written(tmp_path, dataset, format))
    assert read.metadata.dataset == "cifar10"
    assert read.preprocess == info.CIFAR
    if format == "folders":
        np.testing.assert_array_equal(read.images, by_class(dataset))
        np.testing.assert_array_equal(read.labels, np.sort(LABELS))
    else:
        np.testing.assert_array_equal(read.images, dataset.images)
        np.testing.assert_array_equal(read.labels, LABELS)


@pytest.mark.parametrize("format", ["gift", "npz"])
def test_round_trip_of_floats(tmp_path, format):
    images = TRAIN_IMAGES[:20] / np.float32(230) - np.float32(0.05)
    read = data.read_distilled(written(tmp_path, pixel_dataset(images), format))
    np.testing.assert_array_equal(read.images, images)


def test_npz_keeps_soft_labels(tmp_path):
    read = data.read_distilled(written(tmp_path, pixel_dataset(), "npz"))
    np.testing.assert_array_equal(read.soft_labels, LOGITS)
    again = tmp_path / "hard.npz"
    data.write_distilled(pixel_dataset(soft_labels=None), again, "npz")
    assert data.read_distilled(again).soft_labels is None


def test_greyscale(tmp_path):
    images = TRAIN_IMAGES[:20, ..., :1].astype(np.float32) / 255
    dataset = dataclasses.replace(
        pixel_dataset(images),
        preprocess=info.DIGITS,
        metadata=data.Metadata("digits", 10, "random", "test"),
    )
    for format in ("gift", "npz", "parquet", "folders"):
        path = tmp_path / f"{format}.{'pt' if format == 'gift' else format}"
        data.write_distilled(dataset, path, format)
        source = "folders" if format == "folders" else None
        read = data.read_distilled(path, source, dataset="digits")
        expected = by_class(dataset) if source else images
        np.testing.assert_array_equal(read.images, expected)


def test_8_bits_are_rounded_and_clipped(tmp_path):
    images = np.full((20, 4, 4, 3), 0.5, np.float32)
    images[:, 0, 0] = [-0.2, 1.2, 100.6 / 255]
    read = data.read_distilled(written(tmp_path, pixel_dataset(images), "parquet"))
    np.testing.assert_array_equal(read.images[0, 0, 0] * 255, [0, 255, 101])
    np.testing.assert_allclose(read.images[0, 1, 1] * 255, 128)


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


@pytest.mark.parametrize(
    ("name", "official"),
    [("tiny_imagenet", "tinyimagenet"), ("imagenette", "imagenet-nette")],
)
def test_gift_uses_official_names(tmp_path, name, official):
    metadata = data.Metadata(name, 10, "random", "test")
    dataset = dataclasses.replace(pixel_dataset(), metadata=metadata)
    content = torch_files.load_torch(written(tmp_path, dataset, "gift"))
    assert content["dataset"] == official
    assert content["data"].shape == (20, 3, 4, 4)
    assert content["data"].dtype == np.float32
    assert content["label"].dtype == np.int64


def test_gift_takes_datm_as_it_is(tmp_path):
    dataset = whitened_dataset("datm")
    path = written(tmp_path, dataset, "gift")
    read = data.read_distilled(path, dataset=TINY_CIFAR, train_images=TRAIN_IMAGES)
    np.testing.assert_array_equal(read.images, dataset.images)
    np.testing.assert_array_equal(read.soft_labels, dataset.soft_labels)
    np.testing.assert_array_equal(read.preprocess.matrix, dataset.preprocess.matrix)


@pytest.mark.parametrize("format", ["gift", "npz"])
def test_other_whitened_images_are_written_as_pixels(tmp_path, format):
    dataset = whitened_dataset("rfad")
    read = data.read_distilled(written(tmp_path, dataset, format))
    assert not read.is_whitened
    np.testing.assert_allclose(read.images, TRAIN_IMAGES[:20] / 255, atol=1e-5)
    np.testing.assert_array_equal(read.labels, dataset.labels)


@pytest.mark.parametrize("format", ["gift", "npz"])
def test_what_could_not_be_read_back_is_not_written(tmp_path, format):
    """As RFAD's learnt images, un-whitened, which range over [-1.66, 3.58]."""
    dataset = whitened_dataset("rfad")
    learnt = dataset.pixels().copy()
    learnt[0, 0, 0] = 3.58
    learnt = dataclasses.replace(dataset, images=dataset.preprocess.apply(learnt))
    with pytest.raises(ValueError, match=r"3\.58\].*\[-1\.0, 2\.0\].*save_distilled"):
        data.write_distilled(learnt, tmp_path / "x", format)
    assert not list(tmp_path.iterdir())
    data.save_distilled(learnt, tmp_path / "own")
    read = data.read_distilled(tmp_path / "own")
    np.testing.assert_array_equal(read.images, learnt.images)


@pytest.mark.parametrize("format", ["folders", "folders_jpg", "parquet"])
def test_whitened_images_do_not_fit_8_bits(tmp_path, format):
    with pytest.raises(ValueError, match=r"ZCA-whitened.*save_distilled"):
        data.write_distilled(whitened_dataset("rfad"), tmp_path / "x", format)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", data.WRITERS)
def test_nothing_is_overwritten(tmp_path, format):
    path = tmp_path / "x"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="exists already"):
        data.write_distilled(pixel_dataset(), path, format)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("format", data.WRITERS)
def test_nothing_is_left_after_a_failure(tmp_path, monkeypatch, format):
    real_writer = data.WRITERS[format]

    def broken(dataset, path):
        real_writer(dataset, path)
        raise OSError("disk full")

    monkeypatch.setitem(data.WRITERS, format, broken)
    with pytest.raises(OSError, match="disk full"):
        data.write_distilled(pixel_dataset(), tmp_path / "x", format)
    assert not list(tmp_path.iterdir())


def test_unknown_format(tmp_path):
    with pytest.raises(
        ValueError, match="unknown format 'zip'; expected one of gift, folders"
    ):
        data.write_distilled(pixel_dataset(), tmp_path / "x", "zip")


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


def test_pytorch_reads_data_pt(tmp_path):
    torch = pytest.importorskip("torch")
    content = torch.load(written(tmp_path, pixel_dataset(), "gift"), weights_only=True)
    assert content["dataset"] == "cifar10"
    assert content["label"].tolist() == LABELS.tolist()
    np.testing.assert_array_equal(
        content["data"].permute(0, 2, 3, 1).numpy(), pixel_dataset().images
    )
