"""Parts and states of a distillation that is not whole."""

import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax.distill.unfinished import Unfinished
from gift_jax.models.variables import CheckpointMismatchError
from gift_jax.runtime import hosts
from gift_jax.runtime.errors import InputError, UserError

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


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-9], lambda b: b[:600] + b"?" + b[601:]]
)
def test_a_damaged_part_is_none(damage, tmp_path, caplog):
    kept = Unfinished(tmp_path)
    kept.keep("a", np.zeros(1000, np.uint8))
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert kept.kept("a") is None and "a is made again" in caplog.text


def test_a_directory_is_for_one_recipe(tmp_path):
    recipe = {"method": "sre2l", "iterations": 2, "range": (0, 1), "teacher": None}
    kept = Unfinished(tmp_path / "new")
    kept.claim(lambda: recipe)
    kept.keep("a", np.arange(3))
    kept.claim(lambda: recipe)
    with pytest.raises(InputError, match="with iterations 2, expected 50: remove it"):
        kept.claim(lambda: {**recipe, "iterations": 50})
    with pytest.raises(InputError, match="with seed None, expected 7"):
        kept.claim(lambda: {**recipe, "seed": 7})
    Unfinished(None).claim(lambda: recipe)


def test_hosts_take_turns(tmp_path, monkeypatch):
    monkeypatch.setattr(hosts, "count", lambda: 3)
    monkeypatch.setattr(hosts, "index", lambda: 1)
    own = [number for number in range(8) if Unfinished(tmp_path).is_own(number)]
    assert own == [1, 4, 7]
    assert all(Unfinished(None).is_own(number) for number in range(8))


def test_what_another_host_kept_is_waited_for(tmp_path, monkeypatch):
    kept = Unfinished(tmp_path)
    monkeypatch.setattr(hosts.time, "sleep", lambda _: kept.keep("a", np.arange(3)))
    np.testing.assert_array_equal(kept.of_others("a"), np.arange(3))
    monkeypatch.setattr(hosts, "_SEEN_WITHIN_SECONDS", 0.0)
    with pytest.raises(
        UserError, match=r"process 0 does not see b, .* all hosts share"
    ):
        kept.of_others("b")


def test_what_is_kept_is_not_made_again(tmp_path):
    made = []

    def make():
        made.append(1)
        return np.arange(3)

    for kept, times in ((Unfinished(tmp_path), 1), (Unfinished(None), 3)):
        for _ in range(2):
            np.testing.assert_array_equal(kept.kept_or_made("a", make), np.arange(3))
        assert len(made) == times


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
