"""Tests of `gift_jax.data.sources`: digits, class folders, parts of a source."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets as sklearn_datasets

from gift_jax.data import real, sources
from gift_jax.runtime.errors import InputError
from tests.data.samples import write_image


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


def make_split(root, split, names):
    for value, name in enumerate(names):
        write_image(root / split / name / "a.png", np.full((4, 4), value))


def test_class_folders_of_numbers_are_sorted_as_numbers(tmp_path):
    names = [str(number) for number in range(12)]
    for split in ("train", "val"):
        make_split(tmp_path, split, names)
    opened = sources.Folders(tmp_path)
    assert opened.classes == names
    for split in ("train", "val"):
        source = opened.split(split)
        assert source.labels(range(12)).tolist() == list(range(12))
        values = [np.asarray(Image.open(path))[0, 0] for path in source.images]
        assert values == list(range(12))


def test_class_folders_are_sorted_by_name_if_one_is_no_number(tmp_path):
    make_split(tmp_path, "train", ["10", "9", "b", "n01440764", "007", "²"])
    # As `ImageFolder` has them.
    expected = ["007", "10", "9", "b", "n01440764", "²"]
    assert sources.Folders(tmp_path).classes == expected


def test_dot_entries_are_no_classes_and_no_images(folders):
    expected = real.load_dataset(f"folder:{folders}").train.all_images()
    for place in (".ipynb_checkpoints", "cat/.ipynb_checkpoints", "dog/deep/.cache"):
        write_image(folders / "train" / place / "x.png", np.zeros((6, 6)))
    write_image(folders / "train" / "cat" / "._0.png", np.zeros((6, 6)))
    (folders / "val" / ".git").mkdir()
    (folders / ".hidden").mkdir()
    dataset = real.load_dataset(f"folder:{folders}")
    assert dataset.info.num_classes == 2
    np.testing.assert_array_equal(dataset.train.all_images(), expected)
    assert len(dataset.test) == 1
    with pytest.raises(ValueError, match=r"splits: train, val\. "):
        sources.Folders(folders).split("test")


@pytest.mark.parametrize("kind", ["pipe", "dangling link"])
def test_a_pipe_among_images_is_named_and_not_opened(folders, kind):
    path = folders / "train" / "dog" / "x.png"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("nowhere.png")
    with pytest.raises(InputError, match=rf"^{path} is no regular file$"):
        sources.Folders(folders).split("train")


def test_links_to_images_and_folders_are_followed_once(folders):
    train = folders / "train"
    shutil.move(train / "dog", folders / "elsewhere")
    (train / "dog").symlink_to(folders / "elsewhere")
    (train / "cat" / "3.png").symlink_to(train / "cat" / "0.png")
    (train / "cat" / "loop").symlink_to(train)
    more = folders / "more"
    write_image(more / "4.png", np.zeros((4, 4)))
    for name in ("more", "again"):
        (train / "cat" / name).symlink_to(more)
    source = sources.Folders(folders).split("train")
    assert len(source) == 6
    assert source.labels(range(6)).tolist() == [0, 0, 0, 0, 0, 1]


def test_home_is_expanded(folders, monkeypatch):
    monkeypatch.setenv("HOME", str(folders.parent))
    assert sources.Folders(f"~/{folders.name}").classes == ["cat", "dog"]
    with pytest.raises(FileNotFoundError, match="no class folders"):
        sources.Folders("~nobody_of_this_name/set")


@pytest.mark.parametrize(
    "text",
    [
        b"0.png\tb\t0\t0\n1.png\ta\t0\t0\n",
        b"\xef\xbb\xbf0.png\tb\t0\t0\n1.png\ta\n",
        b"0.png\tb\t0\t0\r\n1.png\ta\t0\t0\r\n",
        b"\n0.png\tb\n\n  \n1.png\ta\n\n",
    ],
    ids=["plain", "BOM", "CRLF", "blank lines"],
)
def test_annotations_as_editors_leave_them(tmp_path, text):
    make_split(tmp_path, "train", ["a", "b", "c"])  # val/ lacks c
    for number in range(2):
        write_image(tmp_path / "val" / "images" / f"{number}.png", np.zeros((4, 4)))
    (tmp_path / "val" / "val_annotations.txt").write_bytes(text)
    source = sources.Folders(tmp_path).split("val")
    assert [path.name for path in source.images] == ["0.png", "1.png"]
    assert source.labels([0, 1]).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"0.png\ta\n9.png\ta\n", r"line 2 of .*val_annotations.txt: no image '9.png'"),
        (b"0.png\n", "class '' in .* none of the 1 classes"),
        (b"\xff\xfe\x00", "no image"),
        (b"0.png\tz\n", "class 'z' in .* none of the 1 classes"),
    ],
)
def test_annotations_that_do_not_fit(tmp_path, text, message):
    make_split(tmp_path, "train", ["a"])
    write_image(tmp_path / "val" / "images" / "0.png", np.zeros((4, 4)))
    (tmp_path / "val" / "val_annotations.txt").write_bytes(text)
    with pytest.raises(InputError, match=message):
        sources.Folders(tmp_path).split("val")


def test_annotations_of_images_that_were_sorted_into_classes(tmp_path):
    make_split(tmp_path, "train", ["a"])
    write_image(tmp_path / "val" / "a" / "0.png", np.zeros((4, 4)))
    (tmp_path / "val" / "val_annotations.txt").write_text("0.png\ta\n")
    assert sources.Folders(tmp_path).split("val").labels([0]).tolist() == [0]


def test_splits_of_other_names(folders):
    (folders / "train").rename(folders / "training")
    (folders / "val").rename(folders / "testing")
    names = {"train_split": "training", "test_split": "testing"}
    dataset = real.load_dataset(f"folder:{folders}", image_size=4, **names)
    assert dataset.class_names == ("cat", "dog")
    with pytest.raises(FileNotFoundError, match=r"/train; .*dataset\.train_split"):
        real.load_dataset(f"folder:{folders}", image_size=4)


def test_a_test_split_may_lack_classes(folders):
    dataset = real.load_dataset(f"folder:{folders}")
    assert dataset.test.labels.tolist() == [1]  # of dog, the second of the two


def test_parts_of_parts_keep_their_images(folders):
    whole = sources.Folders(folders).split("train")
    part = sources.Subset(sources.Subset(whole, np.array([3, 1, 0])), np.array([0, 2]))
    assert len(part) == 2
    assert part.labels([0, 1]).tolist() == [1, 0]
    assert part.records([1, 0]) == [whole.images[0], whole.images[3]]


def test_some_classes_are_numbered_by_their_places():
    digits = real.load_dataset("digits")
    some = digits.of_classes((7, 0, 3))
    assert some.info.num_classes == 3
    assert some.class_names == ("7", "0", "3")
    for split, whole in ((some.train, digits.train), (some.test, digits.test)):
        kept = np.flatnonzero(np.isin(whole.labels, (7, 0, 3)))
        np.testing.assert_array_equal(split.images(range(9)), whole.images(kept[:9]))
        np.testing.assert_array_equal(
            np.array([7, 0, 3])[split.labels], whole.labels[kept]
        )
    others = [digits.of_classes(c).test.fingerprint for c in ((7, 0), (0, 7), (7, 3))]
    assert len({some.test.fingerprint, digits.test.fingerprint, *others}) == 5
    again = some.test.subset(np.array([4, 2]))
    np.testing.assert_array_equal(again.images([0, 1]), some.test.images([4, 2]))
    with pytest.raises(InputError, match="is empty"):
        digits.of_classes((10,))


def test_labels_are_read_once_for_all_selections_of_classes(monkeypatch):
    """Of TFDS they lie in the records beside the images."""
    digits, read = real.load_dataset("digits"), []
    labels = sources.RecordList.labels

    def counted(source, indices):
        read.append(len(indices))
        return labels(source, indices)

    monkeypatch.setattr(sources.RecordList, "labels", counted)
    for classes in ((1, 2), (2, 1), (3, 4)):
        some = digits.of_classes(classes)
        assert set(some.train.labels) == set(some.test.labels) == {0, 1}
    assert read == [len(digits.train), len(digits.test)]


def test_held_out_images_are_restricted_too():
    digits = real.load_dataset("digits", validation_images=300)
    some = digits.of_classes((1, 2))
    assert len(some.validation) == np.isin(digits.validation.labels, (1, 2)).sum()
    assert len(some.train) + len(some.validation) == len(some.with_held_out)


def test_images_to_calibrate_on_are_held_out_or_some_of_the_train_split(monkeypatch):
    held_out = real.load_dataset("digits", validation_images=300)
    assert held_out.calibration is held_out.validation
    monkeypatch.setattr(real, "_CALIBRATION_IMAGES", 50)
    whole = real.load_dataset("digits")
    assert len(whole.calibration) == 50
    train = {image.tobytes() for image in whole.train.all_images()}
    some = [image.tobytes() for image in whole.calibration.images(range(50))]
    assert train.issuperset(some) and len(set(some)) == 50
    again = real.load_dataset("digits").calibration
    assert again.fingerprint == whole.calibration.fingerprint
