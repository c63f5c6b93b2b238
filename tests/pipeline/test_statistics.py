"""The product of statistics on the train split."""

import jax
import numpy as np
import pytest

from gift_jax.data import real
from gift_jax.distill.recovery import real_statistics
from gift_jax.pipeline import statistics
from gift_jax.pipeline.products import Product, WorkdirError
from gift_jax.runtime import preemption
from tests.distill.recovery import networks


@pytest.fixture(scope="module")
def case():
    teacher, data = networks.teacher("conv1"), networks.data(25)
    return teacher, data, real_statistics.measure(teacher, data)


def test_they_are_measured_once_and_checked(case, tmp_path, monkeypatch):
    teacher, data, expected = case
    product = Product(tmp_path / "conv1", {"teacher": teacher.fingerprint})
    made = statistics.make_statistics(product, teacher, data)
    monkeypatch.setattr(real_statistics, "measure", None)
    found = statistics.make_statistics(product, teacher, data)
    jax.tree.map(np.testing.assert_array_equal, made, expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    path = tmp_path / "conv1" / "statistics.npz"
    with np.load(path) as file:
        arrays = dict(file)
    arrays["0"] = arrays["0"] + 1
    np.savez(path, **arrays)
    with pytest.raises(WorkdirError, match="conv1 is damaged"):
        statistics.make_statistics(product, teacher, data)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WorkdirError, match=r"statistics.npz is missing or damaged"):
        statistics.make_statistics(product, teacher, data)
    path.unlink()
    with pytest.raises(WorkdirError, match=r"delete .*conv1 to have the statistics"):
        statistics.make_statistics(product, teacher, data)


def test_what_was_stopped_leaves_nothing(case, tmp_path, monkeypatch):
    teacher, data, _ = case
    monkeypatch.setattr(preemption, "requested", lambda: True)
    product = Product(tmp_path / "conv1", {})
    with pytest.raises(preemption.PreemptedError):
        statistics.make_statistics(product, teacher, data)
    assert not (tmp_path / "conv1").exists()


def test_channel_statistics_are_measured_once(tmp_path, monkeypatch):
    train = networks.data(25).train
    expected = real.channel_statistics(train)
    assert statistics.channel_statistics(tmp_path, train) == expected
    with monkeypatch.context() as patch:
        patch.setattr(real, "channel_statistics", None)
        assert statistics.channel_statistics(tmp_path, train) == expected
    (path,) = tmp_path.glob("channel_statistics/*/done.json")
    path.write_text(path.read_text().replace("0.", "0.1"))
    assert statistics.channel_statistics(tmp_path, train) == expected


def test_channel_statistics_are_of_these_images(tmp_path, monkeypatch):
    train = networks.data(25).train
    statistics.channel_statistics(tmp_path, train)
    fewer = train.subset(np.arange(20))
    found = statistics.channel_statistics(tmp_path, fewer)
    assert found == real.channel_statistics(fewer)
    assert len(list(tmp_path.glob("channel_statistics/*/done.json"))) == 2


def test_measuring_channels_that_was_stopped_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(preemption, "requested", lambda: True)
    with pytest.raises(preemption.PreemptedError):
        statistics.channel_statistics(tmp_path, networks.data(25).train)
    assert not list(tmp_path.glob("channel_statistics/*/done.json"))
