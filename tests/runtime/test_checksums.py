"""Checksums of directories and records."""

import pytest

from gift_jax.runtime import checksums


@pytest.fixture
def sealed(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "weights").write_bytes(b"1234")
    (tmp_path / "time").write_text("now")
    checksums.seal(tmp_path, but="time")
    return tmp_path


def test_what_was_sealed_is_verified(sealed):
    checksums.verify(sealed)
    (sealed / "time").write_text("later")
    (sealed / "added").touch()
    checksums.verify(sealed)


@pytest.mark.parametrize("content", [b"1235", b"", b"12345", None])
def test_another_file_is_named(sealed, content):
    path = sealed / "d" / "weights"
    path.unlink() if content is None else path.write_bytes(content)
    why = "is missing" if content is None else "is not what was written"
    with pytest.raises(checksums.DamagedError, match=f"d/weights {why}"):
        checksums.verify(sealed)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"d/weights": 1}'])
def test_damaged_checksums_verify_nothing(sealed, content):
    (sealed / checksums.FILE).write_bytes(content)
    with pytest.raises(checksums.DamagedError, match="is not what was written"):
        checksums.verify(sealed)
    (sealed / checksums.FILE).unlink()
    with pytest.raises(checksums.DamagedError, match=r"checksums\.json is missing"):
        checksums.verify(sealed)


def test_records():
    record = {"top1": 51.25, "name": "a", "nothing": None, "list": [1, 2]}
    kept = checksums.with_checksum(record)
    assert checksums.without_checksum(kept) == record
    assert checksums.without_checksum(record) == record
    for name, value in {"top1": 51.5, "name": "b", "list": [2, 1]}.items():
        with pytest.raises(checksums.DamagedError):
            checksums.without_checksum({**kept, name: value})
    with pytest.raises(checksums.DamagedError):
        checksums.without_checksum({**kept, "more": 1})
