"""The axis that devices are mapped over, and copies of arrays on all of them."""

import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from gift_jax.runtime.errors import InputError

# Of every pmap.
AXIS = "batch"


def local() -> tuple[jax.Device, ...]:
    """The devices of this host.

    Raises:
      InputError: JAX finds none of the kind that JAX_PLATFORMS asks for.
    """
    try:
        return tuple(jax.local_devices())
    except (RuntimeError, AssertionError) as error:  # the latter for "cuda" without one
        reason = (str(error).strip().splitlines() or ["no such device"])[0]
        raise InputError(
            f"JAX_PLATFORMS is {os.environ.get('JAX_PLATFORMS', '')!r}, but JAX cannot "
            f"use it ({reason[:160]}): unset it, or install the JAX for that device, "
            'such as pip install "gift_jax[cuda]" or "gift_jax[tpu]"'
        ) from error


def own(devices: Sequence[jax.Device]) -> list[jax.Device]:
    """Those of the devices that are this host's."""
    return [d for d in devices if d.process_index == jax.process_index()]


def replicate(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Puts a copy of every array on every device, so that no step moves it again.

    Every host puts its own copies on those of the devices that are its own.
    """
    return jax.device_put(tree, _sharding(devices))


def spread(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Puts slice i of every array on the i-th of this host's devices."""
    return jax.device_put(tree, _sharding(devices, AXIS))


def padded_batches(
    num_images: int, batch_size: int, *, local_devices: int, num_hosts: int = 1
) -> tuple[int, int]:
    """How images that hosts share are spread over devices in equal, padded batches.

    Args:
      num_images: Of all hosts.
      batch_size: The most in a batch over all devices, but that it is rounded up to
        divide over them.
      local_devices: Of each host.
      num_hosts: How many there are.

    Returns:
      The batches of a host with the largest share, and images of a device in one.
    """
    images = min(batch_size, num_images)
    per_device = -(-images // (local_devices * num_hosts))
    largest_share = -(-num_images // num_hosts)
    return -(-largest_share // (per_device * local_devices)), per_device


def _sharding(devices: Sequence[jax.Device], *axes: str) -> jax.sharding.NamedSharding:
    mesh = jax.sharding.Mesh(np.asarray(own(devices)), (AXIS,))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
