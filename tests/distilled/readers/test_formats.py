"""Tests of `gift_jax.distilled.readers.formats`."""

import numpy as np
import pytest

from gift_jax import distilled
from gift_jax.distilled import read_distilled
from gift_jax.distilled.dataset import save_distilled
from gift_jax.distilled.readers import (
    guess_source,
)
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
        save_distilled(read_distilled(made["gift"]), tmp_path / "own")
        made |= {
            "frepo": tmp_path / "frepo.npz",
            "npz": tmp_path / "plain.npz",
            "rcig": tmp_path / "rcig",
            "gift_jax": tmp_path / "own",
        }
        assert made.keys() == distilled.READERS.keys()
        for source, path in made.items():
            assert guess_source(path) == source
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
        with pytest.raises(ValueError, match=r"'gift' and 'folders'.*source="):
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
        with pytest.raises(ValueError, match="ipc=1"):
            read_distilled(path, ipc=1)
