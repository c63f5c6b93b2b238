"""Readers by name: which one, what it is asked for, and one of the user's own."""

import sys

import numpy as np
import pytest

from gift_jax import distilled
from gift_jax.data import info
from gift_jax.distilled import read_distilled, save_distilled
from gift_jax.distilled.readers import guess_source
from gift_jax.runtime.errors import InputError
from tests.distilled.readers.samples import (
    CENTRED,
    FLOATS,
    LABELS,
    ZCA,
    checkpoint,
    write_datm,
    write_folders,
    write_gift,
    write_parquet,
    write_rfad,
)


class TestGuessing:
    def test_every_format_is_told_from_the_others(self, tmp_path):
        made = {
            "torch": write_gift(tmp_path),
            "folders": write_folders(tmp_path / "folders"),
            "rfad": write_rfad(tmp_path / "rfad.npz"),
            "parquet": write_parquet(tmp_path / "x.parquet"),
        }
        np.savez(tmp_path / "frepo.npz", image=FLOATS, label=CENTRED)
        np.savez(tmp_path / "plain.npz", images=FLOATS, labels=LABELS)
        (tmp_path / "rcig").mkdir()
        params = {"x_proto": FLOATS, "y_proto": CENTRED, "log_temp": np.float32(0)}
        (tmp_path / "rcig/checkpoint_1").write_bytes(checkpoint(params=params))
        save_distilled(read_distilled(made["torch"]), tmp_path / "own")
        made |= {
            "frepo": tmp_path / "frepo.npz",
            "npz": tmp_path / "plain.npz",
            "rcig": tmp_path / "rcig",
            "gift_jax": tmp_path / "own",
        }
        assert made.keys() == distilled.READERS.keys()
        for source, path in made.items():
            assert guess_source(path) == source
        datm = write_datm(tmp_path / "datm", ZCA["kornia"], CENTRED)
        assert guess_source(datm) == "torch"
        # Never the npz alone, which would lose how the images are whitened.
        assert guess_source(tmp_path / "own" / "distilled.npz") == "gift_jax"

    def test_nothing_known(self, tmp_path):
        (tmp_path / "readme.md").write_text("hello")
        for path in (tmp_path, tmp_path / "readme.md"):
            with pytest.raises(ValueError, match="no distilled dataset") as caught:
                read_distilled(path)
            assert all(
                reader.LOOKS_LIKE in str(caught.value)
                for reader in distilled.READERS.values()
            )
        with pytest.raises(ValueError, match=r"a directory with readme\.md"):
            read_distilled(tmp_path)

    def test_two_formats(self, tmp_path):
        write_gift(tmp_path)
        write_folders(tmp_path)
        with pytest.raises(ValueError, match=r"'torch' and 'folders'.*source="):
            read_distilled(tmp_path)
        assert len(read_distilled(tmp_path, "gift")) == 20

    def test_arguments(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            read_distilled(tmp_path / "nowhere")
        with pytest.raises(FileNotFoundError, match="nowhere"):
            read_distilled(tmp_path / "nowhere", "npz")
        path = write_gift(tmp_path)
        with pytest.raises(
            ValueError,
            match=r"unknown distilled.source 'gifts' .*expected one of gift_jax",
        ):
            read_distilled(path, "gifts")
        with pytest.raises(InputError, match=r"holds 2 images of a class, but ipc=1 "):
            read_distilled(path, ipc=1)
        assert len(read_distilled(path, ipc=2)) == 20

    def test_more_classes_than_images(self, tmp_path):
        path = tmp_path / "x.npz"
        np.savez(path, images=FLOATS[:2], labels=np.array([0, 2**31 - 2]))
        many = info.DatasetInfo("many", 2**31 - 1, 4, 3, info.CIFAR)
        with pytest.raises(InputError, match="no image of class 1, 2, 3, 4, 5 and oth"):
            read_distilled(path, dataset=many)


class TestOutside:
    """Readers of the user's own."""

    @pytest.fixture(autouse=True)
    def module(self, tmp_path, monkeypatch):
        (tmp_path / "my_formats.py").write_text(MY_FORMATS)
        monkeypatch.syspath_prepend(tmp_path)
        yield
        sys.modules.pop("my_formats", None)

    def test_is_asked_and_checked_as_the_others(self, tmp_path):
        path = tmp_path / "cifar10.raw"
        path.write_bytes(FLOATS.tobytes())
        read = read_distilled(path, "my_formats:read", ipc=2)
        np.testing.assert_array_equal(read.images, FLOATS)
        np.testing.assert_array_equal(read.labels, LABELS)
        assert read.metadata.dataset == "cifar10"
        assert read.metadata.source == str(path)
        with pytest.raises(InputError, match="holds 2 images of a class, but ipc=3"):
            read_distilled(path, "my_formats:read", ipc=3)
        path.write_bytes(b"short")
        with pytest.raises(InputError, match="read as 'my_formats:read': 5 bytes"):
            read_distilled(path, "my_formats:read")

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("my_formats:nothing", "it gave a NoneType, expected a DistilledDataset"),
            ("my_formats:reed", "did you mean 'read'"),
            ("my_formats:number", "is a int, expected something to call"),
            ("no_such_module:read", "cannot be imported"),
        ],
    )
    def test_what_is_no_reader(self, tmp_path, name, message):
        with pytest.raises(InputError, match=message):
            read_distilled(tmp_path, name)

    def test_faults_of_its_own_keep_their_traceback(self, tmp_path):
        with pytest.raises(ZeroDivisionError):
            read_distilled(tmp_path, "my_formats:fails")
        with pytest.raises(FileNotFoundError, match="nowhere"):
            read_distilled(tmp_path / "nowhere", "my_formats:fails")


MY_FORMATS = """
import numpy as np
from gift_jax.distilled.readers import arrays
from gift_jax.runtime.errors import InputError

number = 3

def read(request):
    data = request.path.read_bytes()
    if len(data) % (4 * 4 * 3 * 4):
        raise InputError(f"{len(data)} bytes are no images of 4x4 pixels")
    images = np.frombuffer(data, np.float32).reshape(-1, 4, 4, 3)
    labels = np.arange(10).repeat(len(images) // 10)
    return arrays.pixel_dataset(request, request.info(), images, labels)

def nothing(request):
    pass

def fails(request):
    return 1 / 0
"""
