"""Tests of `gift_jax.distilled.readers.torch_arrays`."""

import json
import math
import re

import ml_dtypes
import numpy as np
import pytest

from gift_jax import data
from gift_jax.data import info
from gift_jax.distilled import read_distilled
from gift_jax.distilled.readers import TrainImagesNeededError, torch_arrays
from gift_jax.runtime.errors import InputError
from gift_jax.torch_io import torch_files
from tests.distilled.readers.samples import (
    CENTRED,
    FIXTURES,
    FLOATS,
    LABELS,
    RNG,
    SHARED,
    SMOOTH,
    TINY_CIFAR,
    TRAIN_IMAGES,
    ZCA,
    channels_first,
    write_datm,
    write_gift,
)

PUBLISHED = FIXTURES / "published"
DISTILLED = SHARED / "data/distilled"
needs_shared = pytest.mark.skipif(not DISTILLED.exists(), reason="needs ../shared")


class TestGift:
    def test_reads_values(self, tmp_path):
        for path in (write_gift(tmp_path), tmp_path):
            read = read_distilled(path)
            np.testing.assert_array_equal(read.images, FLOATS)
            np.testing.assert_array_equal(read.labels, LABELS)
            assert read.metadata.dataset == "cifar10"
            assert read.metadata.hard_labels == "class"
            assert read.preprocess == info.CIFAR
            assert read.soft_labels is None

    @pytest.mark.parametrize("name", ["gift", "datm", "torch"])
    def test_names_of_the_format(self, tmp_path, name):
        assert len(read_distilled(write_gift(tmp_path), name)) == 20

    @pytest.mark.parametrize("name", ["x.ckpt", "x.bin", "X.PT", "DATA", "data.npz"])
    def test_files_are_known_by_content(self, tmp_path, name):
        path = write_gift(tmp_path).rename(tmp_path / name)
        assert len(read_distilled(path)) == 20

    def test_squeezes_labels_and_keeps_overshoot(self, tmp_path):
        images = channels_first(FLOATS) * 1.1 - 0.05  # as CIM's may be
        path = write_gift(tmp_path, data=images, label=LABELS[:, None])
        read = read_distilled(path)
        assert read.labels.shape == (20,)
        np.testing.assert_allclose(channels_first(read.images), images, atol=1e-7)

    @pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
    def test_other_floats(self, tmp_path, dtype):
        images = channels_first(FLOATS).astype(dtype)
        path = write_gift(tmp_path, data=images, label=CENTRED.astype(dtype))
        read = read_distilled(path)
        assert read.images.dtype == read.soft_labels.dtype == np.float32
        np.testing.assert_allclose(read.images, FLOATS, atol=1 / 256)

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
        assert read_distilled(path, dataset="CIFAR-10").metadata.num_classes == 10
        with pytest.raises(
            ValueError, match="'cifar10', but dataset='digits'"
        ) as caught:
            read_distilled(path, dataset="digits")
        assert "config.dataset.name" in str(caught.value)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"label": LABELS.astype(np.float32)}, "must be integers"),
            ({"label": LABELS[:7]}, r"shape \(7,\)"),
            ({"label": LABELS + 1}, r"\[1, 10\], expected \[0, 9\]"),
            ({"label": np.minimum(LABELS, 8)}, "no image of class 9"),
            ({"label": 3}, "the labels are a int, expected a tensor"),
            ({"data": FLOATS}, r"\(20, 4, 4, 3\), expected \(N, 3, H, W\)"),
            ({"data": channels_first(FLOATS)[0]}, r"\(3, 4, 4\)"),
            ({"data": channels_first(FLOATS) * 255}, "divided by 255"),
            ({"data": channels_first(FLOATS) * 2 - 1}, r"values in \[-1, 1\]"),
            ({"data": channels_first(FLOATS) - FLOATS.mean()}, "mean-subtracted"),
            ({"data": channels_first(FLOATS) * np.nan}, "NaN"),
            ({"dataset": ["cifar10"]}, "`dataset` is no name"),
            ({"dataset": "cifar11"}, "did you mean 'cifar10'"),
            ({"dataset": "digits"}, r"expected \(N, 1, H, W\) for digits"),
        ],
    )
    def test_malformed(self, tmp_path, changes, message):
        path = write_gift(tmp_path, **changes)
        with pytest.raises(ValueError, match=message) as caught:
            read_distilled(path)
        assert str(path) in str(caught.value)

    @pytest.mark.parametrize("name", ["cifar10", "imagenette"])
    @pytest.mark.parametrize("overshoot", [0, 0.05])
    def test_pixels_with_soft_labels_stay_pixels(self, tmp_path, name, overshoot):
        images = channels_first(FLOATS) * (1 + 2 * overshoot) - np.float32(overshoot)
        path = write_gift(tmp_path, dataset=name, data=images, label=CENTRED)
        read = read_distilled(path)
        np.testing.assert_array_equal(channels_first(read.images), images)
        np.testing.assert_array_equal(read.soft_labels, CENTRED)
        np.testing.assert_array_equal(read.labels, LABELS)

    @pytest.mark.parametrize("label", [CENTRED, LABELS])
    def test_standardised(self, tmp_path, label):
        inputs = channels_first(info.IMAGENET.apply(SMOOTH))
        path = write_gift(tmp_path, dataset="imagenette", data=inputs, label=label)
        np.testing.assert_allclose(read_distilled(path).images, SMOOTH, atol=1e-6)

    def test_wrong_keys(self, tmp_path):
        torch_files.save_torch(tmp_path / "data.pt", {"model": {}})
        with pytest.raises(ValueError, match=r"data\.pt holds .*'model'.* expected"):
            read_distilled(tmp_path)

    def test_truncated_zip(self, tmp_path):
        path = write_gift(tmp_path)
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(ValueError, match=r"data\.pt.*truncated"):
            read_distilled(tmp_path)

    @pytest.mark.parametrize("name", ["data.pt", "cifar10.npz"])
    def test_damaged_directory_of_a_zip(self, tmp_path, name):
        path = write_gift(tmp_path)
        path = path.rename(tmp_path / name)
        content = bytearray(path.read_bytes())
        start = content.index(b"PK\x01\x02")
        content[start : start + 4] = b"oops"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{re.escape(name)}.*truncated"):
            read_distilled(path)

    @needs_shared
    def test_the_official_evaluators_file(self):
        read = read_distilled(DISTILLED / "cifar10_conv3_rded_ipc10")
        assert read.images.shape == (100, 32, 32, 3)
        assert read.ipc == 10
        assert read.metadata.method == "rded"
        np.testing.assert_array_equal(read.labels, np.repeat(np.arange(10), 10))


class TestNamed:
    @pytest.mark.parametrize("images", [FLOATS, channels_first(FLOATS)])
    @pytest.mark.parametrize("soft", [{}, {"soft_labels": CENTRED}])
    def test_images_and_labels(self, tmp_path, images, soft):
        path = tmp_path / "mine.pt"
        torch_files.save_torch(path, {"images": images, "labels": LABELS, **soft})
        read = read_distilled(path, dataset="cifar10")
        np.testing.assert_array_equal(read.images, FLOATS)
        np.testing.assert_array_equal(read.labels, LABELS)
        np.testing.assert_array_equal(read.soft_labels, soft.get("soft_labels"))

    def test_bytes_and_the_name_of_the_dataset(self, tmp_path):
        images = (255 * FLOATS).round().astype(np.uint8)
        content = {"images": images, "labels": LABELS, "dataset": "cifar10"}
        torch_files.save_torch(tmp_path / "mine.pt", content)
        read = read_distilled(tmp_path / "mine.pt")
        np.testing.assert_allclose(read.images, images / 255, atol=1e-7)

    def test_soft_labels_that_are_no_tensor(self, tmp_path):
        content = {"images": FLOATS, "labels": LABELS, "soft_labels": "none"}
        torch_files.save_torch(tmp_path / "mine.pt", content)
        with pytest.raises(InputError, match="soft_labels are a str, expected a"):
            read_distilled(tmp_path / "mine.pt", dataset="cifar10")


class TestPair:
    """MTT, DATM, DD-Ranking."""

    logits = (RNG.normal(size=(20, 10)) + 9 * np.eye(10)[LABELS]).astype(np.float32)

    def test_whitened_by_kornia(self, tmp_path):
        root = write_datm(tmp_path / "cifar10", ZCA["kornia"], self.logits)
        read = read_distilled(
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
        read = read_distilled(path, dataset=TINY_CIFAR, train_images=TRAIN_IMAGES)
        assert read.is_whitened
        np.testing.assert_array_equal(read.soft_labels, self.logits)

    @pytest.mark.parametrize(
        ("name", "statistics"),
        [
            ("imagenette", info.IMAGENET),
            ("cifar10", info.CIFAR),
            # `get_dataset` of DC, DSA and DM; MTT's, DATM's and GIFT's have CIFAR-10's.
            (
                "cifar100",
                data.Normalization((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
            ),
        ],
    )
    def test_standardised(self, tmp_path, name, statistics):
        classes = data.dataset_info(name).num_classes
        images = np.resize(SMOOTH, (100, 4, 4, 3))
        labels = np.arange(100) % classes
        inputs = channels_first(statistics.apply(images))
        root = write_datm(tmp_path, inputs, labels)
        (root / "lr_best.pt").unlink()  # which MTT and DATM write
        known = data.DATASETS[name]  # a config may give students other statistics
        known = known.__class__(
            **{
                **vars(known),
                "normalization": info.DATASETS["imagenet10"].normalization,
            }
        )
        for dataset in (name, known):
            read = read_distilled(root, dataset=dataset)
            np.testing.assert_allclose(read.pixels(), images, atol=1e-6)
            assert not read.is_whitened

    @pytest.mark.parametrize("method", ["mtt", "datm"])
    def test_mtt_and_datm_standardise_by_the_statistics_of_cifar_10(
        self, tmp_path, method
    ):
        images = np.resize(SMOOTH, (100, 4, 4, 3))
        inputs = channels_first(info.CIFAR.apply(images))
        (tmp_path / method).mkdir()
        root = write_datm(tmp_path / method, inputs, np.arange(100))
        read = read_distilled(root, dataset="cifar100")
        np.testing.assert_allclose(read.pixels(), images, atol=1e-6)

    def test_needs_train_images(self, tmp_path):
        root = write_datm(tmp_path, ZCA["kornia"], self.logits)
        with pytest.raises(TrainImagesNeededError, match=r"DATM .*train_images="):
            read_distilled(root, dataset="cifar10")
        with pytest.raises(ValueError, match=r"\(150, 2, 4, 3\).*\(N, 4, 4, 3\)"):
            read_distilled(root, dataset="cifar10", train_images=TRAIN_IMAGES[:, :2])

    def test_malformed(self, tmp_path):
        root = write_datm(tmp_path, ZCA["kornia"], self.logits[:, :7])
        known = {"dataset": TINY_CIFAR, "train_images": TRAIN_IMAGES}
        with pytest.raises(InputError, match=r"\(20, 7\).*\(20, 10\)"):
            read_distilled(root, **known)
        torch_files.save_torch(root / "labels_best.pt", LABELS[:7])
        with pytest.raises(InputError, match=r"shape \(7,\), expected \(20,\)"):
            read_distilled(root, **known)
        (root / "labels_best.pt").write_bytes(b"PK\x03\x04 cut")
        with pytest.raises(InputError, match=r"labels_best\.pt .*truncated"):
            read_distilled(root, **known)

    def test_labels_that_are_missing(self, tmp_path):
        root = write_datm(tmp_path, ZCA["kornia"], self.logits)
        (root / "labels_best.pt").unlink()
        with pytest.raises(
            InputError,
            match=r"images_best.pt holds a tensor of shape \(20, 3, 4, 4\), expected "
            "labels_best.pt with its labels beside it$",
        ):
            read_distilled(root, dataset=TINY_CIFAR)

    def test_a_learning_rate_is_a_number(self, tmp_path):
        root = write_datm(tmp_path, ZCA["kornia"], self.logits, np.nan)
        known = {"dataset": TINY_CIFAR, "train_images": TRAIN_IMAGES}
        with pytest.raises(InputError, match="learning rate is nan"):
            read_distilled(root, **known)
        torch_files.save_torch(root / "lr_best.pt", LABELS)
        with pytest.raises(InputError, match=r"lr_best.pt holds \(20,\), expected one"):
            read_distilled(root, **known)
        torch_files.save_torch(root / "lr_best.pt", 2**70)
        assert read_distilled(root, **known).metadata.learning_rate == 2.0**70

    def test_several_files_are_not_guessed_among(self, tmp_path):
        for name in ("images_best.pt", "images.pt", "images_5000.pt"):
            torch_files.save_torch(tmp_path / name, channels_first(SMOOTH))
            torch_files.save_torch(tmp_path / name.replace("images", "labels"), LABELS)
        with pytest.raises(
            InputError, match=r"holds images.pt, images_best.pt of .*one"
        ):
            read_distilled(tmp_path, dataset="cifar10")
        read = read_distilled(tmp_path / "images_5000.pt", dataset="cifar10")
        np.testing.assert_array_equal(read.images, SMOOTH)

    def test_datm_of_dd_ranking(self):
        root = PUBLISHED / "ddranking_datm_cifar10"
        with pytest.raises(TrainImagesNeededError, match="ZCA-whitened as DATM does"):
            read_distilled(root)
        small = np.random.default_rng(0).integers(0, 256, (200, 4, 4, 3), np.uint8)
        read = read_distilled(root, train_images=np.sort(small, axis=1))
        assert (read.is_whitened, read.ipc, read.metadata.method) == (True, 2, "datm")
        assert read.metadata.learning_rate == pytest.approx(0.018356947)
        np.testing.assert_array_equal(read.labels, LABELS)
        assert np.mean(read.soft_labels.argmax(1) == LABELS) == 0.95

    @pytest.mark.parametrize("name", ["", "images_DC_CIFAR10_1_best.pt"])
    def test_dc_of_dd_ranking(self, name):
        read = read_distilled(PUBLISHED / "ddranking_dc_cifar10" / name)
        stored = torch_files.load_torch(
            PUBLISHED / "ddranking_dc_cifar10/images_DC_CIFAR10_1_best.pt"
        )
        expected = np.moveaxis(stored, 1, -1) * info.CIFAR.std + info.CIFAR.mean
        np.testing.assert_allclose(read.images, expected, atol=1e-6)
        assert read.labels.tolist() == list(range(10))
        assert read.metadata.method == "dc"

    @needs_shared
    def test_whole_files_of_dd_ranking(self):
        read = read_distilled(DISTILLED / "ddranking_dc_cifar10_ipc1", ipc=1)
        low, high = np.percentile(read.images, (1, 99))
        assert -0.2 < low < 0.1 < 0.9 < high < 1.2
        assert 0.4 < read.images.mean() < 0.6
        with pytest.raises(TrainImagesNeededError):
            read_distilled(DISTILLED / "ddranking_datm_cifar10_ipc10")


class TestExperiments:
    """DC, DSA, DM."""

    path = PUBLISHED / "res_DSA_CIFAR10_ConvNet_1ipc.pt"

    @pytest.mark.parametrize(
        ("source", "index"),
        [(None, 4), ("torch-experiment=0", 0), ("torch-experiment=-2", 3)],
    )
    def test_one_is_chosen(self, source, index):
        stored = torch_files.load_torch(self.path)["data"]
        assert len(stored) == 5
        read = read_distilled(self.path, source)
        expected = np.moveaxis(stored[index][0], 1, -1) * info.CIFAR.std
        np.testing.assert_allclose(read.images, expected + info.CIFAR.mean, atol=1e-6)
        assert read.labels.tolist() == list(range(10))
        assert (read.metadata.method, read.ipc) == ("dsa", 1)

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            (
                "torch-experiment=5",
                "holds 5 experiments, of which experiment=5 is none",
            ),
            (
                "torch-experiment=x",
                "experiment=x of the format, expected a whole number",
            ),
            ("torch-run=1", "unknown option of the format torch 'run'"),
            ("npz-experiment=1", "unknown option of the format npz 'experiment'"),
        ],
    )
    def test_what_there_is_not(self, source, message):
        with pytest.raises(InputError, match=message):
            read_distilled(self.path, source)

    @pytest.mark.parametrize(
        ("runs", "message"),
        [
            ([], "holds 0 experiments"),
            ([3], "is no pair of images and labels"),
            ([[np.zeros((10, 3, 4, 4), np.float32)]], "is no pair"),
            ([[np.zeros((10, 3, 4, 4), np.float32), None]], "labels are a NoneType"),
            ([[np.zeros((10, 3, 4), np.float32), LABELS]], r"shape \(10, 3, 4\)"),
            ([[channels_first(SMOOTH), LABELS[:9]]], r"\(9,\), expected \(20,\)"),
            ([[channels_first(SMOOTH), LABELS // 2]], "no image of class 5"),
        ],
    )
    def test_malformed(self, tmp_path, runs, message):
        path = tmp_path / "res_DC_CIFAR10_ConvNet_1ipc.pt"
        torch_files.save_torch(path, {"data": runs, "accs_all_exps": {}})
        with pytest.raises(InputError, match=message):
            read_distilled(path)

    def test_files_of_a_directory_by_their_ipc(self, tmp_path):
        for ipc in (1, 10):
            run = [
                channels_first(SMOOTH[::2]).repeat(ipc, 0),
                np.arange(10).repeat(ipc),
            ]
            path = tmp_path / f"res_DM_CIFAR10_ConvNet_{ipc}ipc.pt"
            torch_files.save_torch(path, {"data": [run]})
        for ipc in (1, 10):
            assert read_distilled(tmp_path, dataset="cifar10", ipc=ipc).ipc == ipc
        with pytest.raises(InputError, match="expected one: give the path"):
            read_distilled(tmp_path, dataset="cifar10")

    @needs_shared
    @pytest.mark.parametrize("ipc", [1, 10])
    def test_whole_files_of_dc(self, ipc):
        path = DISTILLED / "dc_family" / f"res_DC_CIFAR10_ConvNet_{ipc}ipc.pt"
        read = read_distilled(path, ipc=ipc)
        assert read.images.shape == (10 * ipc, 32, 32, 3)
        np.testing.assert_array_equal(read.labels, np.arange(10).repeat(ipc))
        assert 0.4 < read.images.mean() < 0.6
        assert len(read_distilled(path.parent, ipc=ipc)) == 10 * ipc


def upsampled(image, size):
    """Bilinear, half-pixel centres, edges repeated: torch without aligned corners."""
    out = np.zeros((size, size, image.shape[-1]))
    for y in range(size):
        for x in range(size):
            at = [
                np.clip((p + 0.5) * side / size - 0.5, 0, side - 1)
                for p, side in zip((y, x), image.shape, strict=False)
            ]
            (top, left), (down, right) = map(math.floor, at), map(math.ceil, at)
            v, u = at[0] - top, at[1] - left
            out[y, x] = (1 - v) * ((1 - u) * image[top, left] + u * image[top, right])
            out[y, x] += v * ((1 - u) * image[down, left] + u * image[down, right])
    return out


class TestMosaics:
    """IDC, DREAM."""

    def write(self, directory, images=FLOATS, labels=LABELS, **arguments):
        directory.mkdir(parents=True, exist_ok=True)
        torch_files.save_torch(directory / "data.pt", [channels_first(images), labels])
        if arguments:
            (directory / "args.txt").write_text(json.dumps(arguments))
        return directory

    @pytest.mark.parametrize(("side", "factor"), [(4, 2), (5, 2), (7, 3)])
    def test_parts_are_enlarged(self, side, factor):
        images = np.random.default_rng(0).random((2, side, side, 3), np.float32)
        parts = torch_arrays.split_mosaics(images, factor)
        assert parts.shape == (2 * factor**2, side, side, 3)
        size = -(-side // factor)
        padded = np.full((2, size * factor, size * factor, 3), 0.5)
        padded[:, :side, :side] = images
        for n in range(len(parts)):
            image, row, column = np.unravel_index(n, (2, factor, factor))
            part = padded[image, row * size :, column * size :][:size, :size]
            np.testing.assert_allclose(parts[n], upsampled(part, side), atol=1e-6)

    def test_the_factor_is_stated(self, tmp_path):
        stated = self.write(tmp_path / "a", dataset="cifar10", factor=2)
        named = self.write(
            tmp_path / "conv3in_grad_mse_nd2000_factor2_lr0.005_mix_ipc2"
        )
        said = self.write(tmp_path / "b")
        for path, source in ((stated, None), (named, None), (said, "torch-factor=2")):
            read = read_distilled(path, source, dataset="cifar10", ipc=2)
            expected = torch_arrays.split_mosaics(FLOATS, 2)
            np.testing.assert_array_equal(read.images, expected)
            np.testing.assert_array_equal(read.labels, LABELS.repeat(4))
            assert (len(read), read.ipc) == (80, 2)

    def test_without_a_factor(self, tmp_path, caplog):
        path = self.write(tmp_path / "refactor2" / "idc_x")  # is the name of no factor
        read = read_distilled(path, dataset="cifar10")
        np.testing.assert_array_equal(read.images, FLOATS)
        assert "taken for whole images" in caplog.text
        assert read.metadata.method == "idc"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"factor": 2, "decode_type": "multi"}, "decode_type 'multi'"),
            ({"factor": 0}, "factor=0, expected 1 to 8"),
            ({"factor": "x"}, "args.txt states no factor"),
            ({"ipc": 2}, "args.txt states no factor"),
        ],
    )
    def test_arguments_that_say_something_else(self, tmp_path, arguments, message):
        path = self.write(tmp_path, **arguments)
        with pytest.raises(InputError, match=message):
            read_distilled(path, dataset="cifar10")

    @pytest.mark.parametrize(
        ("images", "labels", "message"),
        [
            (FLOATS[:7], LABELS, r"\(20,\), expected \(7,\)"),
            (FLOATS, LABELS // 2, "no image of class 5"),
            (FLOATS * 2 - 1, LABELS, r"\[-1, 1\]"),
        ],
    )
    def test_malformed(self, tmp_path, images, labels, message):
        path = self.write(tmp_path, images, labels, factor=1)
        with pytest.raises(InputError, match=message):
            read_distilled(path, dataset="cifar10")
