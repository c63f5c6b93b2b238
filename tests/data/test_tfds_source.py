"""Tests of `gift_jax.data.tfds_source`: sets that TFDS prepared."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from gift_jax.data import real, tfds_source
from gift_jax.runtime.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED_TFDS = ROOT.parent / "shared" / "data" / "tfds"


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


def test_labels_of_large_sets_are_not_quick(tfds_dir, monkeypatch):
    dataset = real.load_dataset(
        "tfds:tiny_plain", data_dir=tfds_dir, validation_images=1
    )
    splits = (dataset.with_held_out, dataset.train, dataset.validation)
    assert all(split.labels_are_quick for split in splits)
    monkeypatch.setattr(tfds_source, "_QUICK", 5)  # of six, in one file
    assert not any(split.labels_are_quick for split in splits)
    assert dataset.train.of_classes((0, 1)).labels_are_quick  # which have been read
    assert real.load_dataset("digits", validation_images=1).train.labels_are_quick


def test_tfds_data_dir_from_the_environment(tfds_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tfds_dir))
    assert len(real.load_dataset("tfds:tiny_plain").train) == 6


@pytest.mark.parametrize(
    "name", ["cifar100", "imagenette", "tfds:nosuch", "tfds:tiny_plain:9.9.9"]
)
def test_dataset_that_is_not_prepared(tfds_dir, no_network, name):
    with pytest.raises(FileNotFoundError) as error:
        real.load_dataset(name, data_dir=tfds_dir)
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


@pytest.mark.skipif(not SHARED_TFDS.is_dir(), reason="needs ../shared/data/tfds")
def test_cifar10_is_what_the_reference_was_computed_on():
    dataset = real.load_dataset("cifar10", data_dir=SHARED_TFDS)
    with np.load(ROOT / "tests" / "fixtures" / "resnet20_cifar10.npz") as golden:
        images, labels = golden["images_uint8"], golden["labels"]
    stored = {
        image.tobytes(): label
        for image, label in zip(
            dataset.test.all_images(), dataset.test.labels, strict=True
        )
    }
    assert [stored[image.tobytes()] for image in images] == labels.tolist()
    np.testing.assert_array_equal(np.bincount(dataset.test.labels), np.full(10, 1000))


@pytest.fixture
def damaged(tfds_dir, tmp_path):
    """A copy of a set that the test may damage: the folder of its files."""
    shutil.copytree(tfds_dir / "tiny_plain", tmp_path / "tiny_plain")
    return tmp_path / "tiny_plain" / "1.0.0"


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("content", [b"{", b"{}", b"\xff\xfe", b"[]", b""])
def test_damaged_descriptions(damaged, name, content):
    (damaged / name).write_bytes(content)
    with pytest.raises(InputError, match=r"TFDS dataset 'tiny_plain' in .* is damaged"):
        real.load_dataset("tfds:tiny_plain", data_dir=damaged.parents[1])


@pytest.mark.parametrize("damage", ["gone", "empty", "half", "a flipped bit"])
def test_damaged_records(damaged, damage):
    (shard,) = damaged.glob("*-train.*")
    content = bytearray(shard.read_bytes())
    shard.unlink()
    content[400] ^= 4
    if damage != "gone":
        sizes = {"empty": 0, "half": len(content) // 2, "a flipped bit": None}
        shard.write_bytes(content[: sizes[damage]])
    with pytest.raises(OSError, match=r"tiny_plain/1\.0\.0 is damaged or incomplete: "):
        # Images are read to learn their size.
        real.load_dataset("tfds:tiny_plain", data_dir=damaged.parents[1])


def test_home_is_expanded(tfds_dir, monkeypatch):
    monkeypatch.setenv("HOME", str(tfds_dir.parent))
    place = f"~/{tfds_dir.name}"
    assert len(real.load_dataset("tfds:tiny_plain", data_dir=place).train) == 6
    monkeypatch.setenv("TFDS_DATA_DIR", place)
    assert len(real.load_dataset("tfds:tiny_plain").train) == 6
