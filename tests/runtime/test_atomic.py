"""Files that are there whole or not at all."""

import json
import pathlib

import pytest

from gift_jax.runtime import atomic


def test_the_new_file_replaces_the_old_one_at_once(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with atomic.replacing(path) as unfinished:
        unfinished.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_fails_leaves_nothing_behind(tmp_path, kind):
    path = tmp_path / "product"
    with pytest.raises(KeyError), atomic.replacing(path) as unfinished:
        if kind == "directory":
            unfinished.mkdir()
            unfinished /= "part"
        unfinished.write_text("half")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_directory_appears_at_once(tmp_path):
    with atomic.replacing(tmp_path / "product") as unfinished:
        unfinished.mkdir()
        (unfinished / "part").write_text("whole")
        assert not (tmp_path / "product").exists()
    assert (tmp_path / "product" / "part").read_text() == "whole"


# --- JSON files ---------------------------------------------------------------------


def test_write_json_replaces_the_whole_file(tmp_path):
    path = tmp_path / "done.json"
    atomic.write_json(path, {"long": "x" * 1000})
    atomic.write_json(path, {"top1": 1.5})
    assert json.loads(path.read_text()) == {"top1": 1.5}
    assert list(tmp_path.iterdir()) == [path]


def test_write_json_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "done.json"
    atomic.write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        atomic.write_json(path, {"new": object()})
    assert list(tmp_path.iterdir()) == [path]

    def half(self, text):
        with self.open("w") as stream:
            stream.write(text[: len(text) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_text", half)
    with pytest.raises(OSError, match="No space left"):
        atomic.write_json(path, {"new": 2})
    assert json.loads(path.read_text()) == {"old": 1}


def test_write_json_puts_the_new_file_in_place_in_one_step(tmp_path, monkeypatch):
    path = tmp_path / "done.json"
    atomic.write_json(path, {"old": 1})
    replaced = []

    def replace(temporary, target):
        # Up to here, readers see the old file; the new one is complete.
        assert json.loads(path.read_text()) == {"old": 1}
        assert json.loads(temporary.read_text()) == {"new": 2}
        assert temporary.parent == path.parent
        replaced.append(target)

    monkeypatch.setattr(pathlib.Path, "replace", replace)
    atomic.write_json(path, {"new": 2})
    assert replaced == [path]
