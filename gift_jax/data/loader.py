"""Batches of a split in a fixed order, read ahead by worker processes (Grain).

The workers read and decode. They use no device, and they end with their parent,
however it ends.
"""

import collections
import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing import connection, resource_tracker
from typing import Any, TypeVar

import numpy as np

from gift_jax.data.image_split import ImageSplit
from gift_jax.runtime.cores import usable_cores
from gift_jax.runtime.errors import InputError

# Bytes of decoded images; fewer are read sooner than workers start.
_LEAST_BYTES = 512 * 2**20
# On fewer cores threads do as well: Pillow lets them run while it decodes.
_LEAST_CORES = 4
_MOST_WORKERS = 16
# Arrays of any size go through pipes: in the 64 MB that Docker and Kubernetes give
# a container as shared memory not one batch of ImageNet fits.
_NO_SHARED_MEMORY = 2**62

T = TypeVar("T")
Batch = tuple[np.ndarray, np.ndarray]


def default_workers(split: ImageSplit, num_bytes: int) -> int:
    """How many worker processes pay off on this host, 0 for none.

    Args:
      split: Split to read. Every worker gets a copy of it, so no workers pay off for
        a split that holds its images in memory.
      num_bytes: Size of the decoded images that are read, in bytes.
    """
    cores = usable_cores()
    if split.is_in_memory or num_bytes < _LEAST_BYTES or cores < _LEAST_CORES:
        return 0
    return min(cores, _MOST_WORKERS)


def read_batches(
    split: ImageSplit, part: range, *, batch_size: int, steps: int, workers: int
) -> Generator[Batch]:
    """Reads consecutive images of a split, in order, in batches of one size.

    Args:
      split: Split to read images from.
      part: Indices of the images.
      batch_size: Images in a batch, B.
      steps: Number of batches. Hosts that evaluate together need the same number,
        so the last ones may be padding altogether.
      workers: See `read_indices`.

    Returns:
      An iterator over (B, S, S, C) uint8 images and (B,) int32 labels, the same for
      any number of workers. The last batches are padded with black images of label -1.

    Raises:
      InputError: the batches are too few for the images.
      OSError: see `read_indices`.
    """
    if steps * batch_size < len(part):
        raise InputError(
            f"{steps} batches of {batch_size} do not hold {len(part)} images"
        )
    starts = range(0, steps * batch_size, batch_size)
    batches = [part[start : start + batch_size] for start in starts]
    return _read(functools.partial(_padded, split, batch_size), batches, workers)


def read_indices(
    split: ImageSplit, batches: Sequence[np.ndarray], *, workers: int
) -> Generator[np.ndarray]:
    """Reads the images of a split in any order, batch by batch, ahead of their use.

    At most six batches a worker are held at a time, or two without workers.

    Args:
      split: Where the images are read from.
      batches: The indices of every batch. A sequence that computes them when it is
        asked must be picklable, as each worker gets a copy.
      workers: Number of processes that read ahead, or 0 for a thread of this process.
        They stop when the iterator is exhausted or closed (`contextlib.closing`).

    Returns:
      An iterator over (len(batch), S, S, C) uint8, in the order of the batches.

    Raises:
      OSError: an image cannot be decoded, or a worker has died.
    """
    return _read(split.images, batches, workers)


def _padded(
    split: ImageSplit, batch_size: int, part: range, threads: int | None
) -> Batch:
    images, missing = split.images(part, threads=threads), batch_size - len(part)
    return (
        np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0))),
        np.pad(split.labels_of(part), (0, missing), constant_values=-1),
    )


def _read(read: Callable[..., T], batches: Sequence[Any], workers: int) -> Generator[T]:
    """Calls `read(batch, threads=...)` for all batches, ahead and in order."""
    workers = min(workers, len(batches))
    if workers:
        one_thread = functools.partial(read, threads=1)
        yield from _read_by_workers(one_thread, batches, workers)
        return
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        ahead: collections.deque[concurrent.futures.Future[T]] = collections.deque()
        for step in range(len(batches)):
            ahead.append(pool.submit(read, batches[step], threads=None))
            if len(ahead) > 1:
                yield ahead.popleft().result()
        if ahead:
            yield ahead.popleft().result()


def _read_by_workers(
    read: Callable[[Any], T], batches: Sequence[Any], workers: int
) -> Iterator[T]:
    import grain
    from absl import flags

    if not flags.FLAGS.is_parsed():  # in a notebook; Grain reads flags of its own
        flags.FLAGS.mark_as_parsed()
    dataset = (
        grain.MapDataset.source(batches)
        .map(read)
        .to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
        .mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers),
            worker_init_fn=_start_worker,
        )
    )
    options = grain.experimental.DatasetOptions(min_shm_size=_NO_SHARED_MEMORY)
    dataset = grain.experimental.WithOptionsIterDataset(dataset, options)
    with contextlib.closing(iter(dataset)) as iterator:
        try:
            # All workers are running when each has read its first batch.
            with _main_module_hidden(), _signals_blocked():
                first = collections.deque(next(iterator) for _ in range(workers))
            while first:
                yield first.popleft()
            yield from iterator
        except RuntimeError as error:  # Grain's; what a worker raises keeps its type
            raise OSError(
                f"a process that reads images has died ({error}). Most often memory is "
                "short: set dataset.workers to fewer, or to 0"
            ) from error


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Blocks signals in all threads and processes that start meanwhile, for good.

    The keyboard and clusters send signals to all processes of a job, but only the main
    process decides when to stop.
    """
    resource_tracker.ensure_running()  # else its start would unblock them
    ours = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ours)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Keeps new processes from importing the main module, which they do not need.

    Otherwise they would run a script without `if __name__ == "__main__"` once more.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _start_worker(index: int, count: int) -> None:
    """Runs in every worker before it reads; called by Grain."""
    del index, count
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
