"""The axis that devices are mapped over, and copies of arrays on all of them."""

import collections
import functools
import importlib.metadata
import importlib.util
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from gift_jax.runtime import hosts
from gift_jax.runtime.errors import InputError, pip_install

try:
    from jax._src.pmap import _cached_shard_map as _kept_by_pmap
except ImportError:  # another JAX, in which at worst nothing is freed
    _kept_by_pmap = None

# The axis of every pmap.
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
            f"such as {pip_install('cuda')}, or likewise tpu"
        ) from error


def may_have_accelerators() -> bool:
    """Whether JAX may find accelerators; known before it starts, and starts nothing."""
    if platforms := jax.config.values["jax_platforms"]:
        return platforms != "cpu"
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return bool(plugins) or importlib.util.find_spec("libtpu") is not None


def mapped(
    function: Callable, *, devices: Sequence[jax.Device], **options: Any
) -> Callable:
    """A function over devices, whose programs are freed once nobody has it any more.

    Args:
      function: What is mapped; JAX keeps its programs as long as what is returned.
      devices: Of this host or of all; hosts run it once all have compiled it.
      **options: Of `jax.pmap`, but for the name of the axis, which is `AXIS`.
    """
    # An object of its own, also where a method or a function of a module is mapped.
    function = functools.partial(function)
    program = jax.pmap(function, axis_name=AXIS, devices=devices, **options)
    # The cache of pmap (JAX 0.10.2) holds its functions weakly, but what it keeps of
    # one holds the function.
    forget = getattr(_kept_by_pmap, "evict_function", None)
    if forget is not None:
        weakref.finalize(program, forget, function).atexit = False
    is_own = len(own(devices)) == len(devices)
    return program if is_own else hosts.compiled_together(program)


def own(devices: Sequence[jax.Device]) -> list[jax.Device]:
    """Those of the devices that are this host's."""
    return [d for d in devices if d.process_index == jax.process_index()]


def replicate(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Puts a copy of every array on every device, so that no step moves it again.

    Every host puts its own copies on those of the devices that are its own.
    """
    return jax.device_put(tree, _sharding(tuple(devices)))


def spread(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Puts slice i of every array on the i-th of this host's devices."""
    return jax.device_put(tree, _sharding(tuple(devices), AXIS))


def run_ahead(devices: Sequence[jax.Device]) -> bool:
    """Whether devices may be given a step before they have done the one before.

    Steps that run ahead of each other on virtual CPU devices can wait for one another's
    threads forever.

    Args:
      devices: Of all hosts.
    """
    return devices[0].platform != "cpu" or len(devices) == 1


def fetched(answers: Iterable[Any], devices: Sequence[jax.Device]) -> Iterator[Any]:
    """Trees of arrays on the host, of which devices make one while another is fetched.

    Args:
      answers: Trees that are made in the order that they are asked for.
      devices: That may make them.
    """
    ahead = int(run_ahead(devices))
    pending: collections.deque[Any] = collections.deque()
    for answer in answers:
        pending.append(answer)
        if len(pending) > ahead:
            yield jax.device_get(pending.popleft())
    yield from map(jax.device_get, pending)


def padded_batches(
    num_images: int, batch_size: int, *, local_devices: int, num_hosts: int = 1
) -> tuple[int, int]:
    """How images that hosts share are spread over devices in equal, padded batches.

    Args:
      num_images: Of all hosts.
      batch_size: The most in a batch over all devices, but that it is rounded up to
        divide over them. There are as few batches as it allows, with as few images as
        they then hold: 260 images are two batches of 130, and not of 256.
      local_devices: Of each host.
      num_hosts: How many there are.

    Returns:
      The batches of a host with the largest share, and images of a device in one.
    """
    images = min(batch_size, num_images)
    most = -(-images // (local_devices * num_hosts))
    largest_share = -(-num_images // num_hosts)
    steps = -(-largest_share // (most * local_devices))
    return steps, -(-largest_share // (steps * local_devices))


@functools.lru_cache(maxsize=16)
def _sharding(
    devices: tuple[jax.Device, ...], *axes: str
) -> jax.sharding.NamedSharding:
    mesh = jax.sharding.Mesh(np.asarray(own(devices)), (AXIS,))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
