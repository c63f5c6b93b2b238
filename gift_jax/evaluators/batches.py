"""The images of a split on the devices, batch by batch, every image once."""

import contextlib
import math
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from gift_jax.data import image_split, loader
from gift_jax.runtime import hosts
from gift_jax.runtime.devices import own, padded_batches, spread

# Most bytes of test images that stay on one device between evaluations.
RESIDENT_BYTES = 2**30


class SplitBatches:
    """One split, of which every host reads its part.

    Small splits are read once and stay on the devices, larger ones are read anew
    for every evaluation. The last batches are padded with images of label -1.

    Args:
      split: Images and labels.
      devices: Devices to spread batches over, equally many of every host.
      batch_size: Images in a batch over all devices, rounded up to divide evenly.
      workers: Processes to read images with, 0 for none; by default
        `loader.default_workers`.
    """

    def __init__(
        self,
        split: image_split.ImageSplit,
        *,
        devices: Sequence[jax.Device],
        batch_size: int = 512,
        workers: int | None = None,
    ) -> None:
        self._split = split
        num_own = len(own(devices))
        self._steps, per_device = padded_batches(
            len(split), batch_size, local_devices=num_own, num_hosts=hosts.count()
        )
        self._shape = (num_own, per_device)
        image_bytes = split.images(np.arange(1)).nbytes
        part_bytes = image_bytes * len(hosts.share(len(split)))
        if workers is None:
            workers = loader.default_workers(split, part_bytes)
        self._workers = workers
        self._resident: list[tuple[Any, Any]] | None = None
        if part_bytes <= RESIDENT_BYTES * num_own:
            self._resident = [spread(batch, devices) for batch in self._read()]

    def __len__(self) -> int:
        """Number of images, of all hosts."""
        return len(self._split)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Images (devices, B, S, S, C) uint8, labels (devices, B) int32 or -1."""
        return self._read() if self._resident is None else iter(self._resident)

    def _read(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        batches = loader.read_batches(
            self._split,
            hosts.share(len(self._split)),
            batch_size=math.prod(self._shape),
            steps=self._steps,
            workers=self._workers,
        )
        with contextlib.closing(batches):
            for images, labels in batches:
                yield (
                    images.reshape(*self._shape, *images.shape[1:]),
                    labels.reshape(self._shape),
                )

    @property
    def places(self) -> np.ndarray:
        """Indices in the split of the images in the batches of all hosts, in order.

        (steps * hosts * devices * B,) integers; -1 for padding.
        """
        size, count, images = math.prod(self._shape), hosts.count(), len(self._split)
        found = np.full((self._steps, count, size), -1)
        for host in range(count):
            part = hosts.share(images, host)
            padded = np.full(self._steps * size, -1)
            padded[: len(part)] = part
            found[:, host] = padded.reshape(self._steps, size)
        return found.ravel()


# Batches in use; images of those that are not in use any more leave the devices.
_shared: weakref.WeakValueDictionary[Any, SplitBatches] = weakref.WeakValueDictionary()


def shared_batches(
    split: image_split.ImageSplit,
    devices: tuple[jax.Device, ...],
    batch_size: int,
    workers: int | None,
) -> SplitBatches:
    """One `SplitBatches` for equal arguments, shared as long as it is in use.

    Args:
      split: See `SplitBatches`, as for the remaining arguments.
      devices: Devices of all hosts.
      batch_size: Images in a batch.
      workers: Processes to read with.
    """
    key = (split, devices, batch_size, workers)
    found = _shared.get(key)
    if found is None:
        found = _shared[key] = SplitBatches(
            split, devices=devices, batch_size=batch_size, workers=workers
        )
    return found
