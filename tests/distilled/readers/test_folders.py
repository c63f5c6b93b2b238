"""Tests of `gift_jax.distilled.readers.folders`."""

import dataclasses
import os

import numpy as np
import pytest
from PIL import Image

from gift_jax.data import info, real
from gift_jax.distilled import read_distilled
from gift_jax.runtime.errors import InputError
from tests.distilled.readers.samples import (
    FIXTURES,
    FLOATS,
    LABELS,
    PIXELS,
    SHARED,
    write_folders,
)

DISTILLED = SHARED / "data/distilled"


class TestFolders:
    @pytest.mark.parametrize(
        "pattern",
        [
            "syn_data/{0:05d}/class{0:05d}_id{1:05d}.png",  # RDED
            "new{0:03d}/class{0:03d}_id{1:03d}.png",  # SRe2L, G-VBSM
            "new{0:05d}/class{0:05d}_id{1:03d}.png",  # CDA's ImageNet-21K
            "{0}/{1}.png",
        ],
    )
    def test_digits_of_any_width(self, tmp_path, pattern):
        root = write_folders(tmp_path / "cifar10", pattern)
        read = read_distilled(root)
        np.testing.assert_array_equal(read.images, FLOATS)
        np.testing.assert_array_equal(read.labels, LABELS)

    def test_jpeg(self, tmp_path):
        images = np.broadcast_to(PIXELS[:, :1, :1], PIXELS.shape)  # JPEG keeps these
        root = write_folders(tmp_path, "new{0:03d}/class{0:03d}_id{1:03d}.jpg", images)
        read = read_distilled(root, dataset="cifar10")
        np.testing.assert_allclose(read.images, images / 255, atol=4 / 255)

    @pytest.mark.parametrize("kind", ["JPG", "Png", "BMP", "webp"])
    def test_any_suffix_of_an_image(self, tmp_path, kind):
        root = write_folders(tmp_path, "{0}/{1}." + kind, PIXELS[:, :1, :1])
        read = read_distilled(root, dataset="cifar10")
        np.testing.assert_allclose(read.images, FLOATS[:, :1, :1], atol=0.03)

    @pytest.mark.parametrize(
        ("pattern", "order"),
        [
            ("{0}/class{0}_id{1}.png", [3, 20, 100]),
            ("{0}/{1}.png", [3, 20, 100]),
            ("{0}/{0}-image{1}.png", [3, 20, 100]),
            ("{0}/v2_{1}_512x512.png", [3, 20, 100]),
            ("{0}/{1}00_image3.png", [3, 20, 100]),
        ],
    )
    def test_ipc_keeps_the_lowest(self, tmp_path, caplog, pattern, order):
        caplog.set_level("INFO")
        for label in range(10):
            for number in (100, 3, 20):
                path = tmp_path / pattern.format(label, number)
                path.parent.mkdir(exist_ok=True)
                pixels = np.full((4, 4, 3), number + label, np.uint8)
                Image.fromarray(pixels).save(path)
        for ipc in (1, 2, 3, None):
            caplog.clear()
            read = read_distilled(tmp_path, dataset="cifar10", ipc=ipc)
            assert (f"{ipc} of 3 images a class" in caplog.text) == (ipc in (1, 2))
            expected = np.add.outer(np.arange(10), order[:ipc]).ravel() / 255
            np.testing.assert_allclose(read.images[:, 0, 0, 0], expected, atol=1e-6)
            assert read.ipc == (ipc or 3)
        with pytest.raises(
            InputError,
            match=r"/0 holds 3 images, .* at least 4 .*config.distilled.ipc=4",
        ):
            read_distilled(tmp_path, dataset="cifar10", ipc=4)

    def test_one_id_twice(self, tmp_path):
        root = write_folders(tmp_path, "{0}/{1}.png")
        (root / "3/1.png").rename(root / "3/00.png")
        self.refuses(root, r"3/00?\.png and another file have the same id")

    def test_order_of_12_classes_is_that_of_the_real_folders(self, tmp_path):
        """`10` comes after `9`, in both, and no dot entry is a class."""
        for split in ("set/train", "set/val", "made"):
            for label in range(12):
                folder = tmp_path / split / str(label)
                folder.mkdir(parents=True)
                Image.fromarray(np.full((4, 4, 3), label, np.uint8)).save(
                    folder / "a.png"
                )
            (tmp_path / split / ".ipynb_checkpoints").mkdir()
            Image.new("RGB", (4, 4)).save(tmp_path / split / "0/.a.png")
        real_set = real.load_dataset(f"folder:{tmp_path}/set")
        assert real_set.class_names == tuple(map(str, range(12)))
        read = read_distilled(tmp_path / "made", dataset=real_set.info)
        real_images = real_set.train.all_images()
        np.testing.assert_array_equal(np.rint(read.images * 255), real_images)
        np.testing.assert_array_equal(read.labels, real_set.train.labels)

    def rename(self, root, names):
        for label, name in enumerate(names):
            (root / f"{label:05d}").rename(root / name)
        return root

    def test_classes_by_wordnet_id(self, tmp_path):
        names = [f"n0{number}" for number in range(1000000, 1000010)]
        root = self.rename(write_folders(tmp_path), names)
        np.testing.assert_array_equal(
            read_distilled(root, dataset="imagewoof").labels, LABELS
        )
        read = read_distilled(root, dataset="imagewoof", class_names=names[::-1])
        np.testing.assert_array_equal(
            read.images, FLOATS.reshape(10, 2, 4, 4, 3)[::-1].reshape(FLOATS.shape)
        )
        (root / names[0]).rename(root / "n09999999")
        self.refuses(
            root,
            r"classes \['n01000000'\] are missing, \['n09999999'\] are unknown",
            class_names=names,
        )

    def test_classes_by_name(self, tmp_path):
        names = "shirt dress bag coat boot sandal top trouser sneaker pullover"
        names = names.split()
        root = self.rename(write_folders(tmp_path, images=PIXELS[..., 0]), names)
        read = read_distilled(root, dataset="fashion_mnist", class_names=names)
        np.testing.assert_array_equal(read.images[..., 0], FLOATS[..., 0])
        # Their order is not that of the alphabet.
        with pytest.raises(InputError, match="does not say which class they are"):
            read_distilled(root, dataset="fashion_mnist")

    def test_names_of_cifar_10_are_known(self, tmp_path):
        names = "truck ship horse frog dog deer cat bird automobile airplane"
        names = names.split()
        root = self.rename(write_folders(tmp_path), names)
        read = read_distilled(root, dataset="cifar10")
        np.testing.assert_array_equal(read.images[::-2], FLOATS[1::2])
        (root / "automobile").rename(root / "car")  # behind "bird" by the alphabet
        self.refuses(
            root, r"classes \['automobile'\] are missing, \['car'\] are unknown"
        )

    def test_names_of_cifar_100_are_known(self, tmp_path):
        """`maple`, as CIFAR's page has it, is `maple_tree` in CIFAR's files."""
        for index, name in enumerate(info.CLASS_NAMES["cifar100"]):
            (tmp_path / name).mkdir()
            pixels = np.full((32, 32, 3), index, np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / "0.png")
        read = read_distilled(tmp_path, dataset="cifar100")
        np.testing.assert_array_equal(read.labels, np.arange(100))
        np.testing.assert_allclose(read.images[:, 0, 0, 0] * 255, np.arange(100), 1e-6)
        (tmp_path / "maple_tree").rename(tmp_path / "maple")
        with pytest.raises(InputError, match=r"\['maple_tree'\] are missing"):
            read_distilled(tmp_path, dataset="cifar100")

    def test_another_number_of_names(self, tmp_path):
        root = write_folders(tmp_path)
        for folder in root.iterdir():
            folder.rename(root / f"class {folder.name}")
        (root / "class 00003").rename(root / ".hidden")
        imagenette = info.dataset_info("imagenette")
        ten = dataclasses.replace(imagenette, image_size=32)
        with pytest.raises(
            InputError, match=r"9 class folders \(class 00000, .*, expected 10"
        ):
            read_distilled(root, dataset=ten)

    def test_d4m(self):
        """Folder K is class K: apples, fish, babies."""
        three = info.DatasetInfo("cifar100", 3, 32, 3, info.CIFAR)
        read = read_distilled(FIXTURES / "published/d4m_cifar100", dataset=three)
        assert (read.ipc, read.metadata.method) == (2, "d4m")
        assert read.labels.tolist() == [0, 0, 1, 1, 2, 2]
        path = FIXTURES / "published/d4m_cifar100/1/1-image90.png"
        with Image.open(path) as image:
            expected = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(np.rint(read.images[3] * 255), expected)

    @pytest.mark.skipif(not DISTILLED.exists(), reason="needs ../shared")
    @pytest.mark.parametrize(
        ("name", "ipc", "size"),
        [("d4m_cifar100_ipc10", 10, 32), ("d4m_tiny_imagenet_ipc1", 1, 64)],
    )
    def test_the_whole_of_d4m(self, name, ipc, size):
        read = read_distilled(DISTILLED / name, ipc=ipc)
        classes = read.metadata.num_classes
        assert read.images.shape == (classes * ipc, size, size, 3)
        np.testing.assert_array_equal(read.labels, np.arange(classes).repeat(ipc))
        path = DISTILLED / name / "11" / "11-image00.png"
        with Image.open(path) as image:
            expected = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(np.rint(read.images[11 * ipc] * 255), expected)

    def test_greyscale(self, tmp_path):
        images = PIXELS[..., 0]
        read = read_distilled(write_folders(tmp_path, images=images), dataset="digits")
        np.testing.assert_array_equal(read.images[..., 0], FLOATS[..., 0])

    def refuses(self, root, message, **options):
        with pytest.raises(ValueError, match=message) as caught:
            read_distilled(root, dataset="cifar10", **options)
        assert str(root) in str(caught.value)

    def test_missing_class(self, tmp_path):
        root = write_folders(tmp_path)
        (root / "00003").rename(root / "00013")
        self.refuses(root, r"classes \[3\] are missing, \[13\] are unknown")

    def test_fewer_images(self, tmp_path):
        root = write_folders(tmp_path)
        (root / "00003/class00003_id00001.png").unlink()
        self.refuses(root, "00003 holds 1 images, .* hold 2: .*config.distilled.ipc")
        assert len(read_distilled(root, dataset="cifar10", ipc=1)) == 10
        self.refuses(root, "00003 holds 1 images, expected at least 2", ipc=2)

    def test_empty_folders(self, tmp_path):
        root = write_folders(tmp_path)
        for file in root.glob("*/*_id00001.png"):
            file.unlink()
        (root / "00003/class00003_id00000.png").unlink()
        self.refuses(root, "00003 holds no images")

    def test_other_files_are_passed_over_as_in_real_folders(self, tmp_path):
        root = write_folders(tmp_path)
        (root / "00003/notes.txt").write_text("hello")
        (root / "readme.md").write_text("hello")
        assert len(read_distilled(root, dataset="cifar10")) == 20
        (root / "00003/notes.txt").rename(root / "00003/notes.gif")
        self.refuses(root, "00003 holds 3 images|00000 holds 2 images, other")

    def test_hidden_files_are_nothing(self, tmp_path):
        root = write_folders(tmp_path)
        (root / "00003" / ".DS_Store").write_text("hello")
        assert len(read_distilled(root, dataset="cifar10")) == 20

    def test_what_is_no_file_is_not_waited_for(self, tmp_path):
        root = write_folders(tmp_path)
        path = root / "00003/class00003_id00001.png"
        path.unlink()
        os.mkfifo(path)
        self.refuses(root, r"id00001\.png is no regular file")

    def test_damaged_image(self, tmp_path):
        root = write_folders(tmp_path)
        path = root / "00003/class00003_id00001.png"
        whole = path.read_bytes()
        for content in (b"hello", whole[:-30]):
            path.write_bytes(content)
            self.refuses(root, r"id00001\.png is not a readable image")

    def test_16_bits_are_refused(self, tmp_path):
        root = write_folders(tmp_path, images=PIXELS[..., 0])
        path = root / "00003/class00003_id00001.png"
        Image.fromarray(np.full((4, 4), 300, np.uint16)).save(path)
        message = r"id00001\.png has more than 8 bits a channel"
        with pytest.raises(ValueError, match=message):
            read_distilled(root, dataset="digits")
        self.refuses(root, message)

    def test_mixed_sizes(self, tmp_path):
        root = write_folders(tmp_path)
        path = root / "00003/class00003_id00001.png"
        Image.fromarray(np.zeros((6, 4, 3), np.uint8)).save(path)
        self.refuses(root, r"mixed sizes.*4x4.*id00001\.png has 6x4")

    def test_two_folders_of_a_class(self, tmp_path):
        root = write_folders(tmp_path)
        (root / "new003").mkdir()
        self.refuses(root, "are both class 3")
