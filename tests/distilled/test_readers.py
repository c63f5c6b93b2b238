import io
import pathlib
import re
import sys
import types

import numpy as np
import pyarrow as pa
import pytest
from flax import serialization
from PIL import Image
from pyarrow import parquet as pq

from gift_jax import data
from gift_jax.data import info, preprocess
from gift_jax.distilled import zca
from gift_jax.distilled.dataset import save_distilled
from gift_jax.distilled.readers import (
    Request,
    TrainImagesNeededError,
    arrays,
    guess_source,
)
from gift_jax.torch_io import torch_files

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"
SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared"

RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(10), 2)
PIXELS = RNG.integers(0, 256, (20, 4, 4, 3), np.uint8)
FLOATS = PIXELS.astype(np.float32) / 255
CENTRED = (np.eye(10)[LABELS] - 0.1).astype(np.float32)

ZCA = np.load(FIXTURES / "data_zca.npz")
TRAIN_IMAGES = ZCA["images"]  # (150, 4, 4, 3) uint8
TINY_CIFAR = info.DatasetInfo("cifar10", 10, 4, 3, info.CIFAR)


def channels_first(images):
    return np.ascontiguousarray(np.moveaxis(images, -1, 1))


def write_gift(directory, **changes):
    content = {"dataset": "cifar10", "data": channels_first(FLOATS), "label": LABELS}
    path = directory / "data.pt"
    torch_files.save_torch(path, {**content, **changes})
    return path


def write_folders(root, pattern="{0:05d}/class{0:05d}_id{1:05d}.png", images=PIXELS):
    seen = {}
    for image, label in zip(images, LABELS, strict=True):
        seen[label] = seen.get(label, -1) + 1
        path = root / pattern.format(label, seen[label])
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, quality=75)
    return root


class TestGift:
    def test_reads_values(self, tmp_path):
        for path in (write_gift(tmp_path), tmp_path):
            read = data.read_distilled(path)
            np.testing.assert_array_equal(read.images, FLOATS)
            np.testing.assert_array_equal(read.labels, LABELS)
            assert read.metadata.dataset == "cifar10"
            assert read.metadata.hard_labels == "class"
            assert read.preprocess == info.CIFAR
            assert read.soft_labels is None

    def test_squeezes_labels_and_keeps_overshoot(self, tmp_path):
        images = channels_first(FLOATS) * 1.1 - 0.05  # as CIM's may be
        path = write_gift(tmp_path, data=images, label=LABELS[:, None])
        read = data.read_distilled(path)
        assert read.labels.shape == (20,)
        np.testing.assert_allclose(channels_first(read.images), images, atol=1e-7)

    @pytest.mark.parametrize("dtype", [np.float16, np.float64])
    def test_other_floats(self, tmp_path, dtype):
        images = channels_first(FLOATS).astype(dtype)
        read = data.read_distilled(write_gift(tmp_path, data=images))
        assert read.images.dtype == np.float32
        np.testing.assert_allclose(read.images, FLOATS, atol=1e-3)

    @pytest.mark.parametrize(
        ("official", "name"),
        [
            ("tinyimagenet", "tiny_imagenet"),
            ("imagenet-1k", "imagenet2012"),
            ("imagenet-nette", "imagenette"),
            ("imagenet-woof", "imagewoof"),
            ("fashionmnist", "fashion_mnist"),
        ],
    )
    def test_official_names(self, official, name):
        assert data.dataset_info(official).name == name

    def test_dataset_inside_wins_over_nothing_else(self, tmp_path):
        path = write_gift(tmp_path)
        assert data.read_distilled(path, dataset="CIFAR-10").metadata.num_classes == 10
        with pytest.raises(
            ValueError, match="'cifar10', but dataset='digits'"
        ) as caught:
            data.read_distilled(path, dataset="digits")
        assert "config.dataset.name" in str(caught.value)

    @pytest.mark.parametrize(
        ("changes", "kind", "message"),
        [
            ({"label": LABELS.astype(np.float32)}, TypeError, "must be integers"),
            ({"label": LABELS[:7]}, ValueError, r"shape \(7,\)"),
            ({"label": LABELS + 1}, ValueError, r"\[1, 10\], expected \[0, 9\]"),
            ({"label": np.minimum(LABELS, 8)}, ValueError, "no image of class 9"),
            ({"label": 3}, ValueError, "must be tensors"),
            ({"data": FLOATS}, ValueError, r"\(20, 4, 4, 3\), expected \(N, 3, H, W\)"),
            ({"data": channels_first(FLOATS)[0]}, ValueError, r"\(3, 4, 4\)"),
            ({"data": channels_first(FLOATS) * 255}, ValueError, "divide by 255"),
            ({"data": channels_first(FLOATS) * 6 - 3}, ValueError, "normalisation"),
            ({"data": channels_first(FLOATS) * np.nan}, ValueError, "NaN"),
            ({"dataset": "cifar11"}, ValueError, "did you mean 'cifar10'"),
            ({"dataset": "digits"}, ValueError, r"expected \(N, 1, H, W\) for digits"),
        ],
    )
    def test_malformed(self, tmp_path, changes, kind, message):
        path = write_gift(tmp_path, **changes)
        with pytest.raises(kind, match=message) as caught:
            data.read_distilled(path)
        assert str(path) in str(caught.value)

    @pytest.mark.parametrize("name", ["cifar10", "imagenette"])
    @pytest.mark.parametrize("overshoot", [0, 0.05])
    def test_pixels_with_soft_labels_stay_pixels(self, tmp_path, name, overshoot):
        images = channels_first(FLOATS) * (1 + 2 * overshoot) - np.float32(overshoot)
        path = write_gift(tmp_path, dataset=name, data=images, label=CENTRED)
        read = data.read_distilled(path)
        np.testing.assert_array_equal(channels_first(read.images), images)
        np.testing.assert_array_equal(read.soft_labels, CENTRED)
        np.testing.assert_array_equal(read.labels, LABELS)
        assert read.metadata.method == "gift"

    def test_standardised_with_soft_labels_is_datms(self, tmp_path):
        inputs = channels_first(info.IMAGENET.apply(FLOATS))
        path = write_gift(tmp_path, dataset="imagenette", data=inputs, label=CENTRED)
        read = data.read_distilled(path)
        np.testing.assert_allclose(read.images, FLOATS, atol=1e-6)
        assert read.metadata.method == "datm"

    def test_wrong_keys(self, tmp_path):
        torch_files.save_torch(tmp_path / "data.pt", {"model": {}})
        with pytest.raises(ValueError, match=r"data\.pt holds .*'model'.* expected"):
            data.read_distilled(tmp_path)

    def test_truncated_zip(self, tmp_path):
        path = write_gift(tmp_path)
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(ValueError, match=r"data\.pt.*truncated"):
            data.read_distilled(tmp_path)

    @pytest.mark.parametrize("name", ["data.pt", "cifar10.npz"])
    def test_damaged_directory_of_a_zip(self, tmp_path, name):
        path = write_gift(tmp_path)
        path = path.rename(tmp_path / name)
        content = bytearray(path.read_bytes())
        start = content.index(b"PK\x01\x02")
        content[start : start + 4] = b"oops"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{re.escape(name)}.*truncated"):
            data.read_distilled(path)

    @pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
    def test_the_official_evaluators_file(self):
        read = data.read_distilled(SHARED / "data/distilled/cifar10_conv3_rded_ipc10")
        assert read.images.shape == (100, 32, 32, 3)
        assert read.ipc == 10
        assert read.metadata.method == "rded"
        np.testing.assert_array_equal(read.labels, np.repeat(np.arange(10), 10))


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
        read = data.read_distilled(root)
        np.testing.assert_array_equal(read.images, FLOATS)
        np.testing.assert_array_equal(read.labels, LABELS)

    def test_jpeg(self, tmp_path):
        images = np.broadcast_to(PIXELS[:, :1, :1], PIXELS.shape)  # JPEG keeps these
        root = write_folders(tmp_path, "new{0:03d}/class{0:03d}_id{1:03d}.jpg", images)
        read = data.read_distilled(root, dataset="cifar10")
        np.testing.assert_allclose(read.images, images / 255, atol=4 / 255)

    def test_ipc_keeps_the_first_ids(self, tmp_path):
        root = write_folders(tmp_path)
        read = data.read_distilled(root, dataset="cifar10", ipc=1)
        np.testing.assert_array_equal(read.images, FLOATS[::2])
        with pytest.raises(
            ValueError, match=r"00000 holds 2 images.*ids \[2\].*config.distilled.ipc=3"
        ):
            data.read_distilled(root, dataset="cifar10", ipc=3)

    def test_order_is_numeric(self, tmp_path):
        root = write_folders(tmp_path, "{0}/{1}.png")
        for folder in root.iterdir():
            (folder / "1.png").rename(folder / "10.png")
            (folder / "0.png").rename(folder / "9.png")
        read = data.read_distilled(root, dataset="cifar10")
        np.testing.assert_array_equal(read.images, FLOATS)

    def test_greyscale(self, tmp_path):
        images = PIXELS[..., 0]
        read = data.read_distilled(
            write_folders(tmp_path, images=images), dataset="digits"
        )
        np.testing.assert_array_equal(read.images[..., 0], FLOATS[..., 0])

    def refuses(self, root, message, **options):
        with pytest.raises(ValueError, match=message) as caught:
            data.read_distilled(root, dataset="cifar10", **options)
        assert str(root) in str(caught.value)

    def test_missing_class(self, tmp_path):
        root = write_folders(tmp_path)
        (root / "00003").rename(root / "00013")
        self.refuses(root, r"classes \[3\] are missing, \[13\] are unknown")

    def test_fewer_images(self, tmp_path):
        root = write_folders(tmp_path)
        (root / "00003/class00003_id00001.png").unlink()
        self.refuses(root, "00003 holds 1 images, .* hold 2: .*config.distilled.ipc")
        assert len(data.read_distilled(root, dataset="cifar10", ipc=1)) == 10
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
        assert len(data.read_distilled(root, dataset="cifar10")) == 20

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
            data.read_distilled(root, dataset="digits")
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


def write_datm(directory, images, soft_labels, learning_rate=0.0123):
    directory.mkdir(exist_ok=True)
    torch_files.save_torch(directory / "images_best.pt", images)
    torch_files.save_torch(directory / "labels_best.pt", soft_labels)
    rate = np.array(learning_rate, np.float32)
    torch_files.save_torch(directory / "lr_best.pt", rate)
    return directory


class TestDatm:
    logits = (RNG.normal(size=(20, 10)) + 9 * np.eye(10)[LABELS]).astype(np.float32)

    def test_whitened_by_kornia(self, tmp_path):
        root = write_datm(tmp_path / "cifar10", ZCA["kornia"], self.logits)
        read = data.read_distilled(
            root, dataset=TINY_CIFAR, train_images=lambda: TRAIN_IMAGES
        )
        np.testing.assert_array_equal(channels_first(read.images), ZCA["kornia"])
        np.testing.assert_allclose(read.pixels(), TRAIN_IMAGES[:20] / 255, atol=1e-5)
        np.testing.assert_array_equal(read.soft_labels, self.logits)
        np.testing.assert_array_equal(read.labels, LABELS)
        assert read.metadata.method == "datm"
        assert read.metadata.hard_labels == "class"
        assert read.metadata.learning_rate == pytest.approx(0.0123)

    def test_merged_into_data_pt(self, tmp_path):
        path = write_gift(tmp_path, data=ZCA["kornia"], label=self.logits)
        read = data.read_distilled(path, dataset=TINY_CIFAR, train_images=TRAIN_IMAGES)
        assert read.is_whitened
        np.testing.assert_array_equal(read.soft_labels, self.logits)

    def test_normalised_where_its_config_does_not_whiten(self, tmp_path):
        inputs = info.IMAGENET.apply(FLOATS)
        root = write_datm(tmp_path, channels_first(inputs), self.logits)
        read = data.read_distilled(root, dataset="imagenette")
        np.testing.assert_allclose(read.pixels(), FLOATS, atol=1e-6)
        assert not read.is_whitened

    def test_needs_train_images(self, tmp_path):
        root = write_datm(tmp_path, ZCA["kornia"], self.logits)
        with pytest.raises(TrainImagesNeededError, match=r"DATM .*train_images="):
            data.read_distilled(root, dataset="cifar10")
        with pytest.raises(ValueError, match=r"\(150, 2, 4, 3\).*\(N, 4, 4, 3\)"):
            data.read_distilled(
                root, dataset="cifar10", train_images=TRAIN_IMAGES[:, :2]
            )

    def test_malformed(self, tmp_path):
        root = write_datm(tmp_path, ZCA["kornia"], self.logits[:, :7])
        with pytest.raises(ValueError, match=r"\(20, 7\).*\(20, 10\)"):
            data.read_distilled(root, dataset=TINY_CIFAR, train_images=TRAIN_IMAGES)
        torch_files.save_torch(root / "labels_best.pt", LABELS)
        with pytest.raises(ValueError, match=r"labels_best\.pt holds \(20,\)"):
            data.read_distilled(root, dataset="cifar10")
        (root / "labels_best.pt").unlink()
        with pytest.raises(FileNotFoundError, match="labels_best"):
            data.read_distilled(root, dataset="cifar10")


class TestWhitenedRange:
    # Pictures of large flat areas, as real ones are.
    images = np.clip(
        RNG.normal(128, 60, (800, 1, 1, 3)) + RNG.normal(0, 20, (800, 16, 16, 3)),
        0,
        255,
    ).astype(np.uint8)
    fits = pytest.mark.parametrize("fit", [zca.fit_kornia, zca.fit_rfad])

    def read(self, images, whitening):
        request = Request(pathlib.Path("x"), TINY_CIFAR)
        return arrays.whitened_dataset(request, TINY_CIFAR, images, CENTRED, whitening)

    @fits
    def test_whitened_images_pass(self, fit):
        whitening = fit(self.images)
        inputs = whitening.apply(self.images[:20] / np.float32(255))
        assert self.read(inputs, whitening).is_whitened

    @fits
    @pytest.mark.parametrize("value_space", [lambda x: x, info.CIFAR.apply])
    def test_other_images_are_refused(self, fit, value_space):
        images = value_space(self.images[:20] / np.float32(255))
        with pytest.raises(ValueError, match="not whitened, or in another convention"):
            self.read(images, fit(self.images))


def write_rfad(path, **changes):
    content = {"images": ZCA["rfad"], "labels": CENTRED, "k": 3.9, "jit": 0.005}
    np.savez(path, **{**content, **changes})
    return path


class TestRfad:
    def test_whitened(self, tmp_path):
        path = write_rfad(tmp_path / "best.npz")
        read = data.read_distilled(path, dataset=TINY_CIFAR, train_images=TRAIN_IMAGES)
        np.testing.assert_array_equal(channels_first(read.images), ZCA["rfad"])
        np.testing.assert_allclose(read.pixels(), TRAIN_IMAGES[:20] / 255, atol=1e-5)
        np.testing.assert_array_equal(read.soft_labels, CENTRED)
        np.testing.assert_array_equal(read.labels, LABELS)
        assert read.metadata.method == "rfad"

    def test_greyscale_is_only_standardised(self, tmp_path):
        images = channels_first(info.FASHION_MNIST.apply(FLOATS[..., :1]))
        path = write_rfad(tmp_path / "best.npz", images=images)
        read = data.read_distilled(path, dataset="fashion")
        np.testing.assert_allclose(read.pixels(), FLOATS[..., :1], atol=1e-6)

    @pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
    def test_published_file_without_train_images(self):
        path = SHARED / "data/distilled/rfad_cifar10_ipc10.npz"
        with pytest.raises(TrainImagesNeededError, match="RFAD"):
            data.read_distilled(path)

    @pytest.mark.slow
    @pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")
    def test_published_file_looks_like_images(self):
        from gift_jax.data import real

        train = real.load_dataset("cifar10", data_dir=SHARED / "data/tfds").train
        path = SHARED / "data/distilled/rfad_cifar10_ipc10.npz"
        read = data.read_distilled(path, train_images=train.all_images)
        low, high = np.percentile(read.pixels(), (5, 95))
        assert -0.5 < low < 0.1
        assert 0.9 < high < 1.5
        # Neighbouring pixels of pictures are alike, those of whitened ones are not.
        assert neighbour_correlation(read.pixels()) > 0.9
        assert neighbour_correlation(read.images) < 0.5


def neighbour_correlation(images):
    return np.corrcoef(images[:, :, 1:].ravel(), images[:, :, :-1].ravel())[0, 1]


def checkpoint(**extra):
    state = {"params": {"x_proto": frepo_images(), "y_proto": CENTRED}, "step": 3}
    for name, value in extra.items():
        state[name] = value
    return serialization.msgpack_serialize(state)


FREPO_STATISTICS = preprocess.Normalization(
    (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
)


def frepo_images():
    whitening = zca.fit_frepo(TRAIN_IMAGES, FREPO_STATISTICS)
    return whitening.apply(TRAIN_IMAGES[:20].astype(np.float32) / 255)


class TestFrepo:
    def check(self, path, method, **labels):
        read = data.read_distilled(
            path, dataset=TINY_CIFAR, train_images=lambda: TRAIN_IMAGES
        )
        np.testing.assert_allclose(read.pixels(), TRAIN_IMAGES[:20] / 255, atol=1e-5)
        assert read.metadata.method == method
        return read

    def test_checkpoint(self, tmp_path):
        state = checkpoint(epoch=1, best_val_acc=0.5, ema_average=None)
        (tmp_path / "checkpoint_500000").write_bytes(state)
        for path in (tmp_path, tmp_path / "checkpoint_500000"):
            read = self.check(path, "frepo")
            np.testing.assert_array_equal(read.soft_labels, CENTRED)

    def test_npz(self, tmp_path):
        np.savez(tmp_path / "step.npz", image=frepo_images(), label=CENTRED)
        self.check(tmp_path / "step.npz", "frepo")

    def test_rcig_takes_the_average(self, tmp_path):
        params = {
            "x_proto": frepo_images() + 1,
            "y_proto": -CENTRED,
            "log_temp": np.float32(0),
        }
        average = {**params, "x_proto": frepo_images(), "y_proto": 2 * CENTRED}
        state = checkpoint(params=params, ema_average=average, train_it=15000)
        (tmp_path / "checkpoint_15000").write_bytes(state)
        read = self.check(tmp_path, "rcig")
        np.testing.assert_array_equal(read.soft_labels, 2 * CENTRED)

    def test_greyscale_is_only_standardised(self, tmp_path):
        images = info.FASHION_MNIST.apply(FLOATS[..., :1])
        np.savez(tmp_path / "x.npz", image=images, label=CENTRED)
        read = data.read_distilled(tmp_path / "x.npz", dataset="fashion_mnist")
        np.testing.assert_allclose(read.pixels(), FLOATS[..., :1], atol=1e-6)

    def test_malformed(self, tmp_path):
        whole = checkpoint()
        path = tmp_path / "checkpoint_1"
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match="no distilled dataset of a known format"):
            data.read_distilled(path, dataset="cifar10")
        with pytest.raises(ValueError, match="may be truncated"):
            data.read_distilled(path, "frepo", dataset="cifar10")
        path.write_bytes(whole)
        with pytest.raises(ValueError, match="blocks of 64"):
            data.read_distilled(path, dataset="imagenette")


def write_parquet(path, images=PIXELS, labels=LABELS, column="class_id"):
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = []
    for image in images:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        encoded.append({"bytes": stream.getvalue(), "path": "x.png"})
    columns = {"image": encoded, column: pa.array(labels, pa.int32())}
    pq.write_table(pa.table(columns), path)
    return path


class TestParquet:
    name = "2025-rethinkdc-imagenet-random-ipc-1"

    def test_file_and_directory(self, tmp_path):
        path = write_parquet(tmp_path / "cifar10.parquet")
        np.testing.assert_array_equal(data.read_distilled(path).images, FLOATS)
        root = tmp_path / "cifar10"
        write_parquet(
            root / "data/train-00000-of-00002.parquet", PIXELS[:7], LABELS[:7]
        )
        write_parquet(
            root / "data/train-00001-of-00002.parquet", PIXELS[7:], LABELS[7:]
        )
        write_parquet(root / "data/test-00000-of-00001.parquet", PIXELS[:1], [0])
        read = data.read_distilled(root)
        np.testing.assert_array_equal(read.images, FLOATS)
        np.testing.assert_array_equal(read.labels, LABELS)

    def test_hub_id(self, monkeypatch):
        """Through `datasets`, of which a stand-in has the parts that are used."""

        class Rows:
            column_names = ("image", "class_id")

            def cast_column(self, name, feature):
                assert (name, feature) == ("image", "undecoded")
                return self

            def __getitem__(self, name):
                if name == "class_id":
                    return [label for label in range(1000) for _ in range(1)]
                stream = io.BytesIO()
                Image.new("RGB", (2, 2), (0, 51, 255)).save(stream, "PNG")
                return [{"bytes": stream.getvalue(), "path": None}] * 1000

        def load_dataset(hub_id, split):
            assert (hub_id, split) == (f"he-yang/{self.name}", "train")
            return Rows()

        module = types.ModuleType("datasets")
        module.load_dataset = load_dataset
        module.Image = lambda decode: "decoded" if decode else "undecoded"
        monkeypatch.setitem(sys.modules, "datasets", module)
        read = data.read_distilled(f"he-yang/{self.name}")
        assert read.metadata.dataset == "imagenet2012"
        assert read.metadata.method == "random"
        np.testing.assert_allclose(read.images[5, 0, 0], [0, 0.2, 1])

    def test_packages_that_are_missing(self, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(ImportError, match=r"pip install .gift_jax\[parquet\]"):
            data.read_distilled(f"he-yang/{self.name}")
        path = write_parquet(tmp_path / "cifar10.parquet")
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(ImportError, match=r"pip install .gift_jax\[parquet\]"):
            data.read_distilled(path)

    def test_malformed(self, tmp_path):
        path = write_parquet(tmp_path / "cifar10.parquet", column="other")
        with pytest.raises(ValueError, match=r"columns image, other; expected"):
            data.read_distilled(path)
        write_parquet(path)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(ValueError, match=r"cifar10\.parquet .*truncated"):
            data.read_distilled(path)
        with pytest.raises(ValueError, match=r"cifar10\.parquet.* hold no rows"):
            data.read_distilled(write_parquet(path, [], []))
        (tmp_path / "empty").mkdir()
        with pytest.raises(ValueError, match=r"empty.*no \.parquet file"):
            data.read_distilled(tmp_path / "empty", "parquet", dataset="cifar10")
        images = [*PIXELS[:-1], PIXELS[-1, :2]]
        with pytest.raises(ValueError, match=r"mixed sizes: row 0 .* row 19 has 2x4"):
            data.read_distilled(write_parquet(path, images))


class TestNpz:
    @pytest.mark.parametrize("images", [PIXELS, FLOATS, channels_first(FLOATS)])
    def test_layouts(self, tmp_path, images):
        np.savez(tmp_path / "x.npz", images=images, labels=LABELS, soft_labels=CENTRED)
        read = data.read_distilled(tmp_path / "x.npz", dataset="cifar10")
        np.testing.assert_array_equal(read.images, FLOATS)
        np.testing.assert_array_equal(read.soft_labels, CENTRED)

    def test_malformed(self, tmp_path):
        path = tmp_path / "cifar10.npz"
        for content, message in (
            ({"images": PIXELS}, "no array named 'labels'; found images"),
            ({"images": FLOATS, "labels": CENTRED}, "say source='rfad'"),
            ({"images": PIXELS[:, 0], "labels": LABELS}, r"shape \(20, 4, 3\)"),
            ({"images": PIXELS[:, :3], "labels": LABELS}, r"shape \(20, 3, 4, 3\)"),
            ({"images": FLOATS, "labels": np.array([{}] * 20)}, "pickled objects"),
        ):
            np.savez(path, **content)
            with pytest.raises(ValueError, match=message):
                data.read_distilled(path)
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(ValueError, match=r"cifar10\.npz.*truncated"):
            data.read_distilled(path)
        with pytest.raises(ValueError, match="is a directory"):
            data.read_distilled(tmp_path, "npz", dataset="cifar10")


class TestGuessing:
    def test_every_format_is_told_from_the_others(self, tmp_path):
        made = {
            "gift": write_gift(tmp_path),
            "folders": write_folders(tmp_path / "folders"),
            "datm": write_datm(tmp_path / "datm", ZCA["kornia"], CENTRED),
            "rfad": write_rfad(tmp_path / "rfad.npz"),
            "parquet": write_parquet(tmp_path / "x.parquet"),
        }
        np.savez(tmp_path / "frepo.npz", image=FLOATS, label=CENTRED)
        np.savez(tmp_path / "plain.npz", images=FLOATS, labels=LABELS)
        (tmp_path / "rcig").mkdir()
        params = {"x_proto": FLOATS, "y_proto": CENTRED, "log_temp": np.float32(0)}
        (tmp_path / "rcig/checkpoint_1").write_bytes(checkpoint(params=params))
        save_distilled(data.read_distilled(made["gift"]), tmp_path / "own")
        made |= {
            "frepo": tmp_path / "frepo.npz",
            "npz": tmp_path / "plain.npz",
            "rcig": tmp_path / "rcig",
            "gift_jax": tmp_path / "own",
        }
        assert made.keys() == data.READERS.keys()
        for source, path in made.items():
            assert guess_source(path) == source
        # Never the npz alone, which would lose how the images are whitened.
        assert guess_source(tmp_path / "own" / "dataset.npz") == "gift_jax"

    def test_nothing_known(self, tmp_path):
        (tmp_path / "readme.md").write_text("hello")
        for path in (tmp_path, tmp_path / "readme.md"):
            with pytest.raises(ValueError, match="no distilled dataset") as caught:
                data.read_distilled(path)
            assert all(
                reader.LOOKS_LIKE in str(caught.value)
                for reader in data.READERS.values()
            )
        with pytest.raises(ValueError, match=r"a directory with readme\.md"):
            data.read_distilled(tmp_path)

    def test_two_formats(self, tmp_path):
        write_gift(tmp_path)
        write_folders(tmp_path)
        with pytest.raises(ValueError, match=r"'gift' and 'folders'.*source="):
            data.read_distilled(tmp_path)
        assert len(data.read_distilled(tmp_path, "gift")) == 20

    def test_arguments(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            data.read_distilled(tmp_path / "nowhere")
        with pytest.raises(FileNotFoundError, match="nowhere"):
            data.read_distilled(tmp_path / "nowhere", "npz")
        path = write_gift(tmp_path)
        with pytest.raises(
            ValueError, match=r"unknown source 'gifts' .*expected one of gift_jax"
        ):
            data.read_distilled(path, "gifts")
        with pytest.raises(ValueError, match="only of class folders"):
            data.read_distilled(path, ipc=1)


class TestNaming:
    @pytest.mark.parametrize(
        ("path", "name", "method"),
        [
            ("syn_data/rded/cifar100_conv3/ipc10/data.pt", "cifar100", "rded"),
            ("exp/imagenet-nette_resnet18_f2_mipc300_ipc10_cr5", "imagenette", None),
            ("sre2l_in1k_rn18_4k_ipc50", "imagenet2012", "sre2l"),
            ("cda_tiny_rn18_4k_ipc100", "tiny_imagenet", "cda"),
            ("2025-rethinkdc-imagenet-rded-ipc-10", "imagenet2012", "rded"),
            ("cifar10/old/cifar100.npz", "cifar100", None),
            ("gvbsm_CIFAR100_ipc1", "cifar100", "gvbsm"),
            ("imagenet-100_conv6", "imagenet100", None),
        ],
    )
    def test_named_by_the_path(self, path, name, method, caplog):
        request = Request(pathlib.Path(path))
        assert request.info().name == name
        assert name in caplog.text
        assert request.method() == (method or "unknown")

    @pytest.mark.parametrize(
        "path", ["data.npz", "cifar10_cifar100.npz", "mycifar10x", "."]
    )
    def test_no_or_several_names(self, path):
        with pytest.raises(ValueError, match="give dataset="):
            Request(pathlib.Path(path)).info()

    def test_given_name_wins_over_the_path(self):
        assert Request(pathlib.Path("cifar10.npz"), "digits").info().name == "digits"


class TestHardLabels:
    def test_class_order_survives_labels_that_moved(self):
        learnt = CENTRED.copy()
        learnt[3] = CENTRED[19]  # one label now says another class
        labels, origin = arrays.hard_labels(learnt)
        np.testing.assert_array_equal(labels, LABELS)
        assert origin == "class"

    def test_argmax_of_another_order(self):
        order = np.random.default_rng(1).permutation(20)
        labels, origin = arrays.hard_labels(CENTRED[order])
        np.testing.assert_array_equal(labels, LABELS[order])
        assert origin == "argmax"

    def test_argmax_where_counts_differ(self):
        labels, origin = arrays.hard_labels(CENTRED[:19])
        np.testing.assert_array_equal(labels, LABELS[:19])
        assert origin == "argmax"
