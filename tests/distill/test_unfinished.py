"""Parts and states of a distillation that is not whole."""

import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax.distill.unfinished import Unfinished
from gift_jax.models.variables import CheckpointMismatchError

STATE = {"images": np.arange(6.0).reshape(2, 3), "count": np.int32(7)}
ZEROS = {"images": np.zeros((2, 3)), "count": np.int32(0)}


def equal(found, expected):
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_parts_are_kept(tmp_path):
    kept = Unfinished(tmp_path / "new" / "place")
    assert kept.kept("a") is None
    kept.keep("a", np.arange(3))
    np.testing.assert_array_equal(kept.kept("a"), np.arange(3))


def test_the_latest_state_is_found_and_the_others_go(tmp_path):
    kept = Unfinished(tmp_path)
    assert kept.restore("a", ZEROS) == (0, ZEROS)
    kept.save("a", 3, ZEROS)
    kept.save("a", 12, {**STATE, "count": jnp.int32(7)})
    done, found = kept.restore("a", ZEROS)
    assert done == 12 and [p.name for p in (tmp_path / "a").iterdir()] == ["12"]
    equal(found, STATE)
    assert kept.restore("b", ZEROS)[0] == 0
    kept.forget("a")
    assert kept.restore("a", ZEROS)[0] == 0


def test_a_damaged_state_gives_way_to_the_one_before(tmp_path, caplog):
    kept = Unfinished(tmp_path)
    kept.save("a", 3, STATE)
    (tmp_path / "a" / "4").mkdir()
    done, found = kept.restore("a", ZEROS)
    assert done == 3 and "cannot be read" in caplog.text
    equal(found, STATE)


def test_a_state_of_other_images_is_refused(tmp_path):
    kept = Unfinished(tmp_path)
    kept.save("a", 3, STATE)
    with pytest.raises(CheckpointMismatchError):
        kept.restore("a", {**ZEROS, "images": np.zeros((2, 4))})


def test_without_a_directory_nothing_is_kept():
    kept = Unfinished(None)
    kept.keep("a", np.arange(3))
    kept.save("a", 1, STATE)
    kept.forget("a")
    assert kept.kept("a") is None and kept.restore("a", ZEROS) == (0, ZEROS)
