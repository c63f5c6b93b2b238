"""Files that are there whole or not at all."""

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
