"""The axis that devices are mapped over, and copies of arrays on all of them."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

# Of every pmap.
AXIS = "batch"


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


def _sharding(devices: Sequence[jax.Device], *axes: str) -> jax.sharding.NamedSharding:
    mesh = jax.sharding.Mesh(np.asarray(own(devices)), (AXIS,))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
