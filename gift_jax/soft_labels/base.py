"""Where a training reads its views and their soft labels from: the protocol."""

from collections.abc import Callable, Generator, Iterable
from concurrent import futures
from typing import Any, Protocol, TypeVar

import jax
import numpy as np

from gift_jax.runtime.devices import fetched

T = TypeVar("T")

# `label_views(view, indices)` -> (len(indices), num_classes) float32 of a teacher, on
# which devices may still be at work.
LabelViews = Callable[[int, np.ndarray], jax.Array | np.ndarray]


class SoftLabels(Protocol):
    """Where a training reads its views and their soft labels from."""

    @property
    def views(self) -> int:
        """How many views of every image there are labels of."""

    def start_reading(self, view: int) -> Callable[[], Any]:
        """Starts to read a view.

        Returns:
          What waits for the view with its soft labels, and returns them: a `View`, or
          an `FkdView`.
        """


def prefetched(
    start_reading: Callable[[int], Callable[[], T]], numbers: Iterable[int]
) -> Generator[T]:
    """Reads views in order, each while the one before is in use.

    A thread waits for what is read, checks and decodes it.

    Args:
      start_reading: That of `SoftLabels`, or what does more.
      numbers: Its arguments.

    Yields:
      What is read.
    """
    thread = futures.ThreadPoolExecutor(1, thread_name_prefix="soft labels")
    try:
        pending: futures.Future | None = None
        for number in numbers:
            current = pending
            pending = thread.submit(start_reading(number))
            if current is not None:
                yield current.result()
        if pending is not None:
            yield pending.result()
    finally:
        thread.shutdown(wait=False)


def label_in_batches(
    label_views: LabelViews, view: int, rows: np.ndarray, batch_size: int
) -> np.ndarray:
    """The (len(rows), num_classes) logits of images of a view.

    Args:
      label_views: Is called with as many indices every time.
      view: View number.
      rows: (R,) integers, which images.
      batch_size: How many at a time.
    """
    # Padded, as a batch of another size would be compiled anew.
    padded = np.resize(rows, len(rows) + -len(rows) % batch_size)
    answers = (label_views(view, b) for b in padded.reshape(-1, batch_size))
    logits = np.concatenate(list(fetched(answers, jax.local_devices())))
    return logits[: len(rows)]
