"""Real images in one npz: MedMNIST's form, and what `write` makes of other datasets."""

import numpy as np
import pytest

from gift_jax.data import archive, real
from gift_jax.runtime.errors import InputError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 5, 5, 3), np.uint8)


def medmnist(**changes):
    """Arrays as MedMNIST stores them: labels in a column, a split more."""
    arrays = {
        **{f"{split}_images": PIXELS for split in ("train", "val")},
        **{f"{s}_labels": np.arange(6)[:, None] % 3 for s in ("train", "val", "test")},
        "test_images": PIXELS[::-1],
    }
    arrays |= changes
    return {name: array for name, array in arrays.items() if array is not None}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "made.npz"


def test_a_file_as_medmnist_publishes_them(path):
    np.savez_compressed(path, **medmnist())
    data = real.load_dataset(f"npz:{path}")
    assert (data.info.num_classes, data.info.image_shape) == (3, (5, 5, 3))
    assert data.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(data.train.all_images(), PIXELS)
    np.testing.assert_array_equal(data.test.all_images(), PIXELS[::-1])
    assert data.test.labels.tolist() == [0, 1, 2, 0, 1, 2]
    np.testing.assert_allclose(
        data.info.normalization.mean, PIXELS.mean((0, 1, 2)) / 255
    )
    val = real.load_dataset(f"npz:{path}", test_split="val")
    np.testing.assert_array_equal(val.test.all_images(), PIXELS)


def test_grey_images_need_no_channel(path):
    grey = {f"{s}_images": PIXELS[..., 0] for s in ("train", "val", "test")}
    np.savez(path, **medmnist(**grey))
    data = real.load_dataset(f"npz:{path}")
    np.testing.assert_array_equal(data.train.all_images(), PIXELS[..., :1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": PIXELS / 255}, "dtype float64, expected .* uint8"),
        ({"train_images": PIXELS[..., :2]}, r"shape \(6, 5, 5, 2\)"),
        ({"train_images": PIXELS[:5]}, "5 images and 6 labels in the split 'train'"),
        ({"train_labels": np.eye(6, dtype=int)}, "one class an image"),
        ({"train_labels": np.ones(6)}, "dtype float64, expected .* integers"),
        ({"test_images": None}, "no split 'test'; splits: train, val"),
        ({"train_labels": np.full(6, -1)}, r"labels .* range over \[-1, -1\]"),
        ({"classes": np.array(["a", "b"])}, r"range over \[0, 2\], expected \[0, 1\]"),
    ],
)
def test_other_arrays_are_refused(path, changes, message):
    np.savez(path, **medmnist(**changes))
    with pytest.raises(InputError, match=message):
        _ = real.load_dataset(f"npz:{path}").train.labels


def test_other_files_are_refused(path):
    with pytest.raises(FileNotFoundError, match=r"made\.npz does not exist"):
        real.load_dataset(f"npz:{path}")
    np.savez(path, images=PIXELS, labels=np.arange(6))
    with pytest.raises(InputError, match="holds images, labels, expected arrays such"):
        real.load_dataset(f"npz:{path}")


def splits_of(data):
    return {"train": data.train, "test": data.test}


@pytest.mark.parametrize("kind", ["digits", "folders"])
def test_what_is_written_is_the_dataset(path, kind, folders):
    if kind == "digits":
        data = real.load_dataset("digits")
        archive.write(path, splits_of(data), data.class_names)
        again = real.load_dataset("digits", data_dir=path)
    else:  # encoded images, which stay as they are
        data = real.load_dataset(f"folder:{folders}", image_size=6)
        archive.write(path, splits_of(data), data.class_names)
        again = real.load_dataset(f"npz:{path}", image_size=6)
    assert again.class_names == data.class_names
    assert again.info.normalization == data.info.normalization
    for name, split in splits_of(data).items():
        other = splits_of(again)[name]
        np.testing.assert_array_equal(split.labels, other.labels)
        np.testing.assert_array_equal(split.all_images(), other.all_images())


class Fake:
    """A split whose images are stored in a form of choice."""

    labels = np.array([0, 1])

    def __init__(self, *records):
        self._records = records

    def encoded(self):
        return self._records


def test_pixels_of_several_sizes_are_refused(path):
    with pytest.raises(InputError, match="have shapes"):
        archive.write(path, {"test": Fake(PIXELS[0], PIXELS[1, :4])})
    assert not list(path.parent.iterdir())


def test_encoded_images_keep_their_bytes_and_take_no_more(path):
    """Of very different lengths; an array of bytes would fill all up to the longest."""
    encoded = [b"\0short\0", bytes(range(256)) * 2**17, *[b"\0"] * 30]
    fake = Fake(*encoded)
    fake.labels = np.arange(32)
    archive.write(path, {"test": fake})
    split = archive.Archive(path).split("test")
    assert split.records(range(32)) == encoded
    assert split.records([2, 0]) == [encoded[2], encoded[0]]
    with np.load(path) as stored:
        assert stored["test_images"].nbytes == sum(map(len, encoded))
    shuffled = Fake(*encoded[::-1])
    shuffled.labels = fake.labels
    archive.write(path.with_name("other.npz"), {"test": shuffled})
    other = archive.Archive(path.with_name("other.npz")).split("test")
    assert other.fingerprint != split.fingerprint


def test_ends_may_be_of_any_integers(path):
    images = np.frombuffer(b"abcdef", np.uint8)
    ends = np.cumsum(np.array([2, 4], np.uint32))
    np.savez(path, test_images=images, test_ends=ends, test_labels=[0, 1])
    assert archive.Archive(path).split("test").records([0, 1]) == [b"ab", b"cdef"]


@pytest.mark.parametrize("ends", [[2, 5], [2, 2, 6], [4, 2, 6], [-1, 6], [], [2.5, 6]])
def test_ends_that_do_not_divide_the_bytes(path, ends):
    images = np.frombuffer(b"abcdef", np.uint8)
    labels = np.arange(len(ends))
    np.savez(path, test_images=images, test_ends=np.array(ends), test_labels=labels)
    with pytest.raises(InputError, match=r"test_ends of .* does not divide"):
        archive.Archive(path).split("test")


def test_files_that_unpack_to_very_much(path):
    np.savez_compressed(path, test_images=np.zeros((2**11, 2**14), np.uint8))
    with pytest.raises(InputError, match=r"made\.npz unpacks to .* with numpy\.savez,"):
        archive.Archive(path)
