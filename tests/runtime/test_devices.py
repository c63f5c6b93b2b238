"""Copies and slices of arrays on several devices."""

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


@pytest.mark.parametrize("error", [RuntimeError("no tpu\nfound"), AssertionError()])
def test_a_platform_without_a_device_is_one_line(monkeypatch, error):
    def none():
        raise error

    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    monkeypatch.setattr(jax, "local_devices", none)
    with pytest.raises(InputError, match="JAX_PLATFORMS is 'tpu'") as caught:
        devices.local()
    assert "\n" not in str(caught.value)
