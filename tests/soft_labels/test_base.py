"""What soft labels of every source share: reading ahead, labelling in batches."""

import functools
import threading

import numpy as np
import pytest

from gift_jax.soft_labels.base import label_in_batches, prefetched


@pytest.mark.parametrize(("rows", "batches"), [(7, 3), (6, 2), (2, 1)])
def test_images_are_labelled_in_batches_of_one_size(rows, batches):
    asked = []

    def label_views(view, indices):
        asked.append(indices)
        return 100 * view + np.stack([indices, -indices], axis=1).astype(np.float32)

    chosen = np.arange(10, 10 + rows)
    logits = label_in_batches(label_views, 2, chosen, 3)
    np.testing.assert_array_equal(logits, 200 + np.stack([chosen, -chosen], axis=1))
    assert logits.dtype == np.float32
    assert [len(indices) for indices in asked] == [3] * batches


class Slow:
    """Soft labels that are ready when they are let go."""

    views = 4

    def __init__(self):
        self.started, self.let_go, self.finished = [], threading.Semaphore(0), []

    def start_reading(self, view):
        self.started.append(view)
        return functools.partial(self.finish, view)

    def finish(self, view):
        assert self.let_go.acquire(timeout=10)
        self.finished.append((view, threading.current_thread()))
        return view


def test_prefetched_reads_one_view_while_another_is_in_use():
    source = Slow()
    reader = prefetched(source.start_reading, range(4))
    source.let_go.release()
    for view in range(4):
        assert next(reader) == view
        # One ahead, and no further.
        ahead = min(view + 2, 4)
        assert source.started == list(range(ahead))
        source.let_go.release()
        wait_until(lambda count=ahead: len(source.finished) == count)
    assert next(reader, None) is None
    # Decoded beside the thread that trains.
    threads = {thread for _, thread in source.finished}
    assert threading.current_thread() not in threads and len(threads) == 1


def wait_until(condition):
    deadline = threading.Event()
    for _ in range(1000):
        if condition():
            return
        deadline.wait(0.01)
    raise AssertionError("nothing was read ahead")


def test_a_reader_that_is_left_early_ends_its_thread():
    source = Slow()
    for _ in range(2):
        source.let_go.release()
    reader = prefetched(source.start_reading, range(4))
    next(reader)
    reader.close()
    ours = [t for t in threading.enumerate() if t.name.startswith("soft labels")]
    wait_until(lambda: not any(thread.is_alive() for thread in ours))
    assert [view for view, _ in source.finished] == [0, 1]
    assert source.started == [0, 1]
