"""Copies and slices of arrays on several devices."""

import functools
import gc
import types
import weakref

import jax
import numpy as np
import pytest

from gift_jax.runtime import devices
from gift_jax.runtime.errors import InputError


def test_every_device_has_a_copy():
    array = np.arange(6.0)
    copies = devices.replicate({"x": array}, jax.devices()[:4])["x"]
    assert {shard.device for shard in copies.addressable_shards} == {*jax.devices()[:4]}
    for shard in copies.addressable_shards:
        np.testing.assert_array_equal(shard.data, array)


def test_slice_i_lies_on_device_i():
    array = np.arange(12).reshape(4, 3)
    spread = devices.spread(array, jax.devices()[:4])
    for index, device in enumerate(jax.devices()[:4]):
        (shard,) = [s for s in spread.addressable_shards if s.device == device]
        np.testing.assert_array_equal(shard.data, array[index : index + 1])


def test_with_one_host_all_devices_are_its_own():
    assert devices.own(jax.devices()) == jax.devices()


@pytest.mark.parametrize(
    ("platforms", "plugins", "files", "expected"),
    [
        ("cpu", ["cuda"], ["nvidia0"], False),
        ("cuda,cpu", [], [], True),
        (None, ["cuda"], ["nvidia0"], True),
        (None, ["cuda"], ["nvidiactl"], False),
        (None, ["tpu"], ["vfio/0"], True),
        (None, [], ["nvidia0"], False),
    ],
)
def test_accelerators_are_expected_where_there_are_a_plugin_and_a_device(
    platforms, plugins, files, expected, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        devices.importlib.metadata, "entry_points", lambda *, group: plugins
    )
    for name in files:
        (tmp_path / "dev" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "dev" / name).touch()
    before = jax.config.values["jax_platforms"]
    jax.config.update("jax_platforms", platforms)
    try:
        assert devices.may_have_accelerators(tmp_path) is expected
    finally:
        jax.config.update("jax_platforms", before)


@pytest.mark.parametrize("error", [RuntimeError("no tpu\nfound"), AssertionError()])
def test_a_platform_without_a_device_is_one_line(monkeypatch, error):
    def none():
        raise error

    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    monkeypatch.setattr(jax, "local_devices", none)
    with pytest.raises(InputError, match="JAX_PLATFORMS is 'tpu'") as caught:
        devices.local()
    assert "\n" not in str(caught.value)


class Scale:
    """Maps an array; a method of it is another object at every look."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, array):
        return array * self.factor

    by = __call__


def test_what_is_mapped_is_freed_with_the_last_who_has_it():
    scales = [Scale(factor) for factor in range(3)]
    kept = [weakref.ref(scale) for scale in scales]
    for form in (lambda s: s, lambda s: s.by, lambda s: functools.partial(s)):
        programs = [devices.mapped(form(s), devices=jax.devices()[:2]) for s in scales]
        for factor, program in enumerate(programs):
            found = program(np.arange(2.0))
            np.testing.assert_array_equal(found, [0, factor])
    del programs, program, scales, found, form
    gc.collect()
    assert [scale() for scale in kept] == [None] * 3


def test_another_jax_keeps_what_is_mapped_and_maps_it(monkeypatch):
    monkeypatch.setattr(devices, "_kept_by_pmap", None)
    found = devices.mapped(Scale(2), devices=jax.devices()[:2])(np.arange(2.0))
    np.testing.assert_array_equal(found, [0, 2])


@pytest.mark.parametrize(
    ("platform", "number", "ahead"), [("cpu", 1, 1), ("cpu", 4, 0), ("gpu", 4, 1)]
)
def test_one_batch_is_made_while_another_is_fetched(platform, number, ahead):
    of = [types.SimpleNamespace(platform=platform)] * number
    made = []

    def answers():
        for batch in range(4):
            made.append(batch)
            yield {"sum": jax.numpy.float32(batch)}

    for batch, answer in enumerate(devices.fetched(answers(), of)):
        assert answer == {"sum": batch} and isinstance(
            answer["sum"], np.generic | np.ndarray
        )
        assert made == list(range(min(batch + 1 + ahead, 4)))
    assert batch == 3


@pytest.mark.parametrize(
    ("num_images", "batch_size", "local_devices", "num_hosts", "expected"),
    [
        (260, 256, 1, 1, (2, 130)),
        (256, 256, 1, 1, (1, 256)),
        (20, 256, 8, 1, (1, 3)),
        (10_000, 512, 4, 1, (20, 125)),
        (37, 8, 4, 1, (5, 2)),
        (37, 8, 1, 3, (5, 3)),
        (1, 8, 4, 2, (1, 1)),
    ],
)
def test_padding_is_less_than_an_image_a_batch_and_device(
    num_images, batch_size, local_devices, num_hosts, expected
):
    found = devices.padded_batches(
        num_images, batch_size, local_devices=local_devices, num_hosts=num_hosts
    )
    assert found == expected
    steps, per_device = found
    largest_share = -(-num_images // num_hosts)
    padding = steps * per_device * local_devices - largest_share
    assert 0 <= padding < steps * local_devices
