"""Tests of `gift_jax.distilled.readers.folders`."""

import os
import re

import numpy as np
import pytest
from PIL import Image

from gift_jax.distilled import read_distilled
from tests.distilled.readers.samples import FLOATS, LABELS, PIXELS, write_folders


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

    def test_ipc_keeps_the_first_ids(self, tmp_path):
        root = write_folders(tmp_path)
        read = read_distilled(root, dataset="cifar10", ipc=1)
        np.testing.assert_array_equal(read.images, FLOATS[::2])
        with pytest.raises(
            ValueError, match=r"00000 holds 2 images.*ids \[2\].*config.distilled.ipc=3"
        ):
            read_distilled(root, dataset="cifar10", ipc=3)

    def test_order_is_numeric(self, tmp_path):
        root = write_folders(tmp_path, "{0}/{1}.png")
        for folder in root.iterdir():
            (folder / "1.png").rename(folder / "10.png")
            (folder / "0.png").rename(folder / "9.png")
        read = read_distilled(root, dataset="cifar10")
        np.testing.assert_array_equal(read.images, FLOATS)

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
        self.refuses(root, "00003 holds 1 images and lacks the ids", ipc=2)

    def test_empty_folders(self, tmp_path):
        root = write_folders(tmp_path)
        for file in root.glob("*/*_id00001.png"):
            file.unlink()
        (root / "00003/class00003_id00000.png").unlink()
        self.refuses(root, "00003 holds 0 images")

    @pytest.mark.parametrize("name", ["notes.txt", "class00003_id00007.gif"])
    def test_other_files(self, tmp_path, name):
        root = write_folders(tmp_path)
        (root / "00003" / name).write_text("hello")
        self.refuses(root, f"{re.escape(name)} is not an image")

    def test_hidden_files_are_nothing(self, tmp_path):
        root = write_folders(tmp_path)
        (root / "00003" / ".DS_Store").write_text("hello")
        assert len(read_distilled(root, dataset="cifar10")) == 20

    def test_what_is_no_file_is_not_waited_for(self, tmp_path):
        root = write_folders(tmp_path)
        path = root / "00003/class00003_id00001.png"
        path.unlink()
        os.mkfifo(path)
        self.refuses(root, r"id00001\.png is not an image")

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
