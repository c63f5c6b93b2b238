"""Which images are in which batch, and how batches are spread over devices."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from gift_jax.runtime import hosts
from gift_jax.runtime.errors import InputError


class EpochBatches(NamedTuple):
    """Which images are in which batch of one epoch.

    With several students, arrays have one more axis, the last but one.

    Attributes:
      full: (steps, devices, batch / devices) int32.
      rest: (devices, remainder) int32: the last, smaller batch, or None. Every device
        computes all of it, so its size need not divide over them and the mean over
        devices is still the mean over its images.
    """

    full: np.ndarray
    rest: np.ndarray | None

    @property
    def students(self) -> tuple[int, ...]:
        """(students,) with several students, () with one."""
        return self.full.shape[2:-1]

    @property
    def sizes(self) -> np.ndarray:
        """(steps,) number of images in each batch, the last one included."""
        steps, devices = self.full.shape[:2]
        sizes = [devices * self.full.shape[-1]] * steps
        if self.rest is not None:
            sizes.append(self.rest.shape[-1])
        return np.asarray(sizes)


@functools.partial(jax.jit, static_argnums=2)
def epoch_order(keys: jax.Array, epoch: int, num_images: int) -> jax.Array:
    """The images of an epoch in the order in which they are seen.

    Args:
      keys: Typed key of the order, () for one student or (students,) for several.
      epoch: Epoch number.
      num_images: N.

    Returns:
      (N,) integers, or (students, N).
    """

    def order(key: jax.Array) -> jax.Array:
        return jax.random.permutation(jax.random.fold_in(key, epoch), num_images)

    return jax.vmap(order)(keys) if keys.ndim else order(keys)


def epoch_batches(
    order: jax.Array, *, batch_size: int, num_devices: int
) -> EpochBatches:
    """Cuts an epoch into batches, with every image in one. Waits for the order.

    Args:
      order: From `epoch_order`.
      batch_size: Images in a batch over all devices.
      num_devices: Devices to spread a batch over.
    """
    indices = np.asarray(order, np.int32)
    *students, num_images = indices.shape
    steps, remainder = divmod(num_images, batch_size)
    full, rest = np.split(indices, [steps * batch_size], axis=-1)
    full = full.reshape(*students, steps, num_devices, batch_size // num_devices)
    return EpochBatches(
        np.moveaxis(full, 0, -2) if students else full,
        np.stack([rest] * num_devices) if remainder else None,
    )


def check_batch_size(batch_size: int, num_devices: int) -> None:
    """Raises InputError unless the batch divides evenly over the devices."""
    if batch_size < 1 or batch_size % num_devices:
        below = batch_size - batch_size % num_devices
        nearest = [size for size in (below, below + num_devices) if size > 0]
        raise InputError(
            f"a batch of {batch_size} does not divide over {num_devices} devices; "
            f"the nearest sizes that do are {' and '.join(map(str, nearest))} "
            "(train.batch_size)"
        )


def devices_used(batch_size: int, *, local_devices: int, num_hosts: int) -> int:
    """Largest number of devices per host, equal on all, that divides a batch evenly.

    Not all batch sizes of the official code and of protocols divide over 4 or 8.

    Args:
      batch_size: Images in a batch over all devices.
      local_devices: Devices of each host.
      num_hosts: Number of hosts.

    Raises:
      InputError: the batch does not even divide over the hosts.
    """
    for number in range(local_devices, 0, -1):
        if batch_size % (number * num_hosts) == 0:
            return number
    raise InputError(
        f"a batch of {batch_size} does not divide over {num_hosts} hosts; set "
        "it (train.batch_size, or teacher.batch_size) to a multiple of their number, "
        "or let each of them train its share of the students by itself with --shard "
        '(docs/pods.md, "Many students")'
    )


def devices_for(
    batch_size: int, local_devices: Sequence[jax.Device]
) -> tuple[jax.Device, ...]:
    """The devices of all hosts that a batch is spread over, see `devices_used`."""
    used = devices_used(
        batch_size, local_devices=len(local_devices), num_hosts=hosts.count()
    )
    return hosts.devices(local_devices[:used])


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Optimizer steps in an epoch, including that of the last, smaller batch.

    Raises:
      InputError: `batch_size` is below 1 or not a whole number.
    """
    if batch_size < 1 or int(batch_size) != batch_size:
        raise InputError(f"batch_size is {batch_size}, expected at least 1, an integer")
    return -(-num_images // batch_size)


def official_batch_size(num_images: int) -> int:
    """The batch size of the official evaluator for N distilled images."""
    for most_images, batch_size in ((10, 10), (500, 50), (20_000, 100)):
        if num_images <= most_images:
            return batch_size
    return 200
