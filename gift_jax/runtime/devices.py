"""The axis that devices are mapped over, and arrays on several devices."""

import collections
import functools
import importlib.metadata
import importlib.util
import os
import pathlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from gift_jax.runtime import hosts
from gift_jax.runtime.errors import InputError, pip_install

try:
    from jax._src.pmap import _cached_shard_map as _kept_by_pmap
except ImportError:  # another version of JAX: at worst nothing is freed
    _kept_by_pmap = None

# Axis name of every pmap.
AXIS = "batch"
# Files of GPUs by NVIDIA and AMD, and of TPUs.
_DEVICE_FILES = ("nvidia[0-9]*", "kfd", "accel*", "vfio/[0-9]*")


def local() -> tuple[jax.Device, ...]:
    """The devices of this host.

    Raises:
      InputError: JAX finds none of the kind that JAX_PLATFORMS asks for.
    """
    try:
        return tuple(jax.local_devices())
    except (RuntimeError, AssertionError) as error:  # the latter without a GPU
        reason = (str(error).strip().splitlines() or ["no such device"])[0]
        raise InputError(
            f"JAX_PLATFORMS is {os.environ.get('JAX_PLATFORMS', '')!r}, but JAX cannot "
            f"use it ({reason[:160]}): unset it, or install the JAX for that device, "
            f"such as {pip_install('cuda')}, or likewise tpu"
        ) from error


def may_have_accelerators(root: pathlib.Path = pathlib.Path("/")) -> bool:
    """Whether JAX may find accelerators; known before it starts, and starts nothing.

    Args:
      root: Root of the file system that has the devices.
    """
    if platforms := jax.config.values["jax_platforms"]:
        return platforms != "cpu"
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    if not plugins and importlib.util.find_spec("libtpu") is None:
        return False
    # Images for both kinds of machines, such as Colab's, have plugins without devices.
    return any(any((root / "dev").glob(pattern)) for pattern in _DEVICE_FILES)


def mapped(
    function: Callable, *, devices: Sequence[jax.Device], **options: Any
) -> Callable:
    """Maps a function over devices; its programs are freed when the result is.

    Args:
      function: Function to map. JAX keeps its programs as long as the returned
        function.
      devices: Devices of this host, or of all hosts, which run it once all have
        compiled it.
      **options: Options of `jax.pmap` except the axis name, which is `AXIS`.
    """
    # A new object, so that programs of methods and module functions are freed, too.
    function = functools.partial(function)
    program = jax.pmap(function, axis_name=AXIS, devices=devices, **options)
    # The cache of pmap (JAX 0.10.2) holds its functions weakly, but its entry for a
    # function holds that function.
    forget = getattr(_kept_by_pmap, "evict_function", None)
    if forget is not None:
        weakref.finalize(program, forget, function).atexit = False
    is_own = len(own(devices)) == len(devices)
    return program if is_own else hosts.compiled_together(program)


def own(devices: Sequence[jax.Device]) -> list[jax.Device]:
    """The devices that belong to this host."""
    return [d for d in devices if d.process_index == jax.process_index()]


def replicate(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Puts a copy of every array on every device, so that no step moves it again.

    Every host puts copies on its own devices only.
    """
    return jax.device_put(tree, _sharding(tuple(devices)))


def spread(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Puts slice i of every array on the i-th of this host's devices."""
    return jax.device_put(tree, _sharding(tuple(devices), AXIS))


def run_ahead(devices: Sequence[jax.Device]) -> bool:
    """Whether a step may be dispatched before the previous one is done.

    Overlapping steps on several virtual CPU devices can wait for one another's threads
    forever.

    Args:
      devices: Devices of all hosts.
    """
    return devices[0].platform != "cpu" or len(devices) == 1


def fetched(answers: Iterable[Any], devices: Sequence[jax.Device]) -> Iterator[Any]:
    """Fetches trees of arrays to the host, each while devices compute the next.

    Args:
      answers: Trees of arrays, each dispatched when it is requested.
      devices: Devices that may compute them.
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
    """Sizes of the equal, padded batches in which hosts and devices share images.

    Args:
      num_images: Images of all hosts.
      batch_size: Most images in a batch over all devices, rounded up to divide over
        them. There are as few batches as it allows, and these are as small as possible:
        260 images are two batches of 130, and not of 256.
      local_devices: Devices of each host.
      num_hosts: Number of hosts.

    Returns:
      The number of batches of the host with the largest share, and the images of a
      device in each.
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
