"""Weights of networks on disk."""

import numpy as np
import orbax.checkpoint as ocp
import pytest

from gift_jax.models import variables
from gift_jax.runtime.errors import UserError

WEIGHTS = {
    "params": {"dense": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}},
    "batch_stats": {},
}


def test_weights_come_back_and_replace_those_before(tmp_path):
    variables.save_variables(tmp_path / "v", WEIGHTS)
    more = {"params": {"dense": {"kernel": 2 * WEIGHTS["params"]["dense"]["kernel"]}}}
    variables.save_variables(tmp_path / "v", more)
    loaded = variables.load_variables(tmp_path / "v", like=more)
    kernel = loaded["params"]["dense"]["kernel"]
    assert isinstance(kernel, np.ndarray)
    np.testing.assert_array_equal(kernel, [[0, 2, 4], [6, 8, 10]])


def test_other_names_and_shapes_are_listed(tmp_path):
    variables.save_variables(tmp_path / "v", WEIGHTS)
    like = {"params": {"dense": {"kernel": np.zeros((2, 4))}, "bias": np.zeros(3)}}
    with pytest.raises(variables.CheckpointMismatchError) as caught:
        variables.load_variables(tmp_path / "v", like=like)
    message = str(caught.value)
    assert "['kernel']: stored (2, 3), expected (2, 4)" in message
    assert "['bias']: stored None, expected (3,)" in message
    many = {f"layer{number}": np.zeros(1) for number in range(12)}
    with pytest.raises(variables.CheckpointMismatchError, match="and 2 more"):
        variables.check_shapes({}, like=many, origin="here")


def test_a_disk_that_fails_is_one_short_error(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(f"File too large: {'x' * 400} in the end\nSource: somewhere")

    monkeypatch.setattr(ocp.StandardCheckpointer, "save", fail)
    with pytest.raises(variables.CheckpointError) as caught:
        variables.save_variables(tmp_path / "v", WEIGHTS)
    message = str(caught.value)
    assert isinstance(caught.value, UserError)
    assert str(tmp_path) in message and "File too large" in message
    assert message.endswith("x in the end") and len(message) < 500


def test_a_directory_that_cannot_be_made_is_an_error_at_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(variables.CheckpointError, match="Not a directory"):
        variables.save_variables(tmp_path / "file" / "v", WEIGHTS)
