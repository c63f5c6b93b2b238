"""Where a training reads its views and their soft labels from: the protocol."""

from collections.abc import Callable, Generator, Iterable
from concurrent import futures
from typing import Any, Protocol, TypeVar

import jax
import numpy as np

from gift_jax.runtime.devices import fetched

T = TypeVar("T")

# `label_views(view, indices)` -> (len(indices), num_classes) float32 logits of a
# teacher, which devices may still be computing.
LabelViews = Callable[[int, np.ndarray], jax.Array | np.ndarray]


class SoftLabels(Protocol):
    """Where a training reads its views and their soft labels from."""

    @property
    def views(self) -> int:
        """Number of views of every image that are labelled."""

    def start_reading(self, view: int) -> Callable[[], Any]:
        """Starts to read a view.

        Returns:
          A function that waits for the view with its soft labels, and returns it: a
          `View`, or an `FkdView`.
        """


def prefetched(
    start_reading: Callable[[int], Callable[[], T]], numbers: Iterable[int]
) -> Generator[T]:
    """Reads views in order, each while the one before is in use.

    A thread waits for the data, checks and decodes it.

    Args:
      start_reading: `SoftLabels.start_reading`, or a function that does more.
      numbers: Its arguments, in order.

    Yields:
      What was read for each of them.
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
      label_views: Called with `batch_size` indices every time.
      view: View number.
      rows: (R,) integer indices of the images.
      batch_size: Images per call.
    """
    # Padded, as a batch of another size would be compiled anew.
    padded = np.resize(rows, len(rows) + -len(rows) % batch_size)
    answers = (label_views(view, b) for b in padded.reshape(-1, batch_size))
    logits = np.concatenate(list(fetched(answers, jax.local_devices())))
    return logits[: len(rows)]
