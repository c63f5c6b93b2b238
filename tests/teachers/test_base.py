"""What all teachers share."""

import sys

import numpy as np
import pytest

from gift_jax import registry
from gift_jax.teachers import base


def test_images_are_given_in_batches_of_one_size():
    seen = []

    class Sums:
        def logits(self, images):
            seen.append(images.shape)
            return images.sum(axis=(1, 2))

    images = np.random.default_rng(0).uniform(size=(300, 2, 2, 3)).astype(np.float32)
    batches = (images[:256], images[256:])
    found = list(base.logits_in_batches(Sums(), batches))
    assert [len(logits) for logits in found] == [256, 44]
    np.testing.assert_array_equal(np.concatenate(found), images.sum(axis=(1, 2)))
    assert set(seen) == {(base.BATCH_SIZE, 2, 2, 3)}


def test_a_fingerprint_stands_for_names_types_shapes_and_values():
    content = {"a": np.arange(6, dtype=np.float32), "b": ["x", 1]}
    first = base.fingerprint(content)
    assert len(first) == 16 and int(first, 16) >= 0
    assert base.fingerprint({**content, "a": content["a"].copy()}) == first
    last_bit = content["a"].copy()
    last_bit[3] = np.nextafter(last_bit[3], 9)
    for other in (
        {"c": content["a"], "b": content["b"]},
        {**content, "a": content["a"].reshape(2, 3)},
        {**content, "a": content["a"].astype(np.float64)},
        {**content, "a": last_bit},
        {**content, "b": ["x", 2]},
        {**content, "b": ["y", 1]},
    ):
        assert base.fingerprint(other) != first


def test_code_is_that_of_the_users_own_modules(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "code_of_mine.py"
    file.write_text("one = 1")
    __import__("code_of_mine")
    monkeypatch.delitem(sys.modules, "code_of_mine", raising=False)
    __import__("code_of_mine")
    first = base.code_fingerprints(["gift_jax.losses", "code_of_mine"])
    assert len(first) == 1
    assert base.code_fingerprints(["gift_jax.losses", "not imported"]) == []
    file.write_text("one = 2")
    registry.reload_edited()
    assert base.code_fingerprints(["code_of_mine"]) != first


def test_errors_are_for_the_user():
    with pytest.raises(ValueError):
        raise base.TeacherError
