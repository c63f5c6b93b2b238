"""Tests of `gift_jax.data.loader`: the same batches from any number of processes."""

import math
import multiprocessing
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gift_jax.data import image_split, info, loader, real, sources
from gift_jax.runtime import hosts

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED_TFDS = ROOT.parent / "shared" / "data" / "tfds"
SIDE = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """37 JPEGs of three classes and of many sizes."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 37)):
        for number in range(count):
            directory = root / split / f"class{number % 3}"
            directory.mkdir(parents=True, exist_ok=True)
            height, width = rng.integers(40, 90, 2)
            pixels = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
            image = Image.fromarray(pixels).resize((width, height))
            image.save(directory / f"{number:02d}.jpg")
    return root


def open_test_split(folder):
    return real.load_dataset(
        f"folder:{folder}", image_size=SIDE, normalization=info.IMAGENET
    ).test


def numbered_split(size):
    """Image i is black but for its number."""
    images = np.zeros((size, 2, 2, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(size)
    made = info.DatasetInfo("numbered", 256, 2, 1, info.MNIST)
    source = sources.RecordList(images, np.arange(size))
    return image_split.ImageSplit(source, made, "test")


def read(split, *, batch_size, workers, part=None, steps=None):
    part = range(len(split)) if part is None else part
    steps = -(-len(part) // batch_size) if steps is None else steps
    batches = loader.read_batches(
        split, part, batch_size=batch_size, steps=steps, workers=workers
    )
    return [(images.copy(), labels.copy()) for images, labels in batches]


# --- Batches ------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    size=st.integers(1, 40),
    num_hosts=st.integers(1, 6),
    batch_size=st.integers(1, 12),
    more_steps=st.integers(0, 2),
)
def test_all_hosts_together_read_every_image_once(
    size, num_hosts, batch_size, more_steps
):
    split = numbered_split(size)
    largest_part = math.ceil(size / num_hosts)
    steps = math.ceil(largest_part / batch_size) + more_steps
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hosts, "count", lambda: num_hosts)
        for host in range(num_hosts):
            patch.setattr(hosts, "index", lambda host=host: host)
            found = read(
                split,
                batch_size=batch_size,
                workers=0,
                part=hosts.share(size),
                steps=steps,
            )
            assert len(found) == steps
            for images, labels in found:
                assert images.shape == (batch_size, 2, 2, 1)
                real_image = labels >= 0
                numbers = images[:, 0, 0, 0]
                np.testing.assert_array_equal(numbers[real_image], labels[real_image])
                assert not images[~real_image].any()
                seen += labels[real_image].tolist()
    assert seen == list(range(size))


def test_too_few_batches_are_refused():
    with pytest.raises(ValueError, match="2 batches of 3 do not hold 7 images"):
        read(numbered_split(7), batch_size=3, workers=0, steps=2)


def test_workers_read_the_same_batches_in_the_same_order(folder):
    split = open_test_split(folder)
    expected = read(split, batch_size=5, workers=0)
    np.testing.assert_array_equal(
        np.concatenate([images for images, _ in expected])[:37], split.all_images()
    )
    fresh = open_test_split(folder)  # nothing of it is in memory
    found = read(fresh, batch_size=5, workers=3)
    assert len(found) == len(expected) == 8
    for (images, labels), (same_images, same_labels) in zip(
        found, expected, strict=True
    ):
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(labels, same_labels)
    assert (found[-1][1] == [*split.labels[35:], -1, -1, -1]).all()


def test_an_image_that_cannot_be_decoded_is_named(folder, tmp_path):
    split = open_test_split(folder)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    images = [*split._source.images]
    images[11] = broken
    source = sources.RecordList(images, split._source.classes)
    damaged = image_split.ImageSplit(source, split._info, "val")
    with pytest.raises(OSError, match=r"image 11 of the 'val' split.*cannot be decod"):
        read(damaged, batch_size=4, workers=2)


@pytest.mark.skipif(not SHARED_TFDS.is_dir(), reason="no ../shared")
def test_workers_read_array_records():
    def open_split():
        return real.load_dataset("cifar10", data_dir=SHARED_TFDS).test

    split, part = open_split(), range(4000, 4070)
    expected = split.images(part)  # the files are open now
    found = read(split, batch_size=20, workers=2, part=part)
    images, labels = (
        np.concatenate(arrays)[:70] for arrays in zip(*found, strict=True)
    )
    np.testing.assert_array_equal(images, expected)
    np.testing.assert_array_equal(labels, split.labels_of(part))
    assert len(pickle.dumps(open_split())) < 100_000


def test_default_workers(monkeypatch, folder):
    folder_split = open_test_split(folder)
    in_memory = real.load_dataset("digits").train
    assert in_memory.of_classes((0, 1)).subset(np.arange(2)).is_in_memory
    assert not folder_split.subset(np.arange(2)).is_in_memory
    imagenet, cifar = 50_000 * 224 * 224 * 3, 10_000 * 32 * 32 * 3
    for cores, expected in ((2, 0), (8, 8), (240, 16)):
        monkeypatch.setattr(
            os, "sched_getaffinity", lambda _, n=cores: set(range(n)), raising=False
        )
        assert loader.default_workers(folder_split, imagenet) == expected
        assert loader.default_workers(folder_split, cifar) == 0
        # Each would be given a copy.
        assert loader.default_workers(in_memory, imagenet) == 0


def test_a_worker_that_dies_is_an_error_that_says_what_to_do(folder):
    split = open_test_split(folder)
    batches = loader.read_batches(
        split, range(len(split)), batch_size=1, steps=37, workers=1
    )
    next(batches)
    (worker,) = multiprocessing.active_children()
    worker.kill()
    with pytest.raises(OSError, match=r"has died .*set dataset\.workers to fewer"):
        list(batches)


# --- Batches of any images -----------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_indices_are_read_in_their_order(folder, workers):
    split = open_test_split(folder)
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 37, size) for size in (5, 5, 1, 0, 7)]
    found = [*loader.read_indices(split, batches, workers=workers)]
    expected = split.all_images()
    assert [len(images) for images in found] == [5, 5, 1, 0, 7]
    for images, indices in zip(found, batches, strict=True):
        assert images.dtype == np.uint8 and images.shape[1:] == (SIDE, SIDE, 3)
        np.testing.assert_array_equal(images, expected[indices])
    assert [*loader.read_indices(split, [], workers=workers)] == []


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_no_more_is_read_ahead_than_is_promised(workers, tmp_path):
    """Of 100 batches few are read while the first is used; closing stops the rest."""

    class Logged(sources.RecordList):
        def records(self, indices):
            for index in indices:
                (tmp_path / str(index)).touch()
            return super().records(indices)

    made = info.DatasetInfo("made", 256, 2, 1, info.MNIST)
    source = Logged(np.zeros((100, 2, 2, 1), np.uint8), np.zeros(100, int))
    split = image_split.ImageSplit(source, made, "train")
    batches = [np.array([index]) for index in range(100)]
    reading = loader.read_indices(split, batches, workers=workers)
    next(reading)
    if workers:  # which read on by themselves
        time.sleep(0.5)
    reading.close()
    most = len(list(tmp_path.iterdir()))
    assert 2 <= most <= (2 if workers == 0 else 6)
    assert not multiprocessing.active_children()
    if workers:
        time.sleep(0.2)
    assert len(list(tmp_path.iterdir())) == most


def test_what_is_wrong_with_an_index_is_raised_at_its_batch():
    batches = [np.array([0]), np.array([1]), np.array([9])]
    reading = loader.read_indices(numbered_split(5), batches, workers=0)
    assert [next(reading)[0, 0, 0, 0] for _ in range(2)] == [0, 1]
    with pytest.raises(IndexError, match="5 images of the 'test' split"):
        next(reading)


# --- Processes ----------------------------------------------------------------------

SCRIPT = """
    import os, sys, time
    from gift_jax.data import info, loader, real

    print("main", os.getpid(), flush=True)
    split = real.load_dataset(
        "folder:{folder}", image_size=32, normalization=info.IMAGENET
    ).test
    batches = loader.read_batches(
        split, range(len(split)), batch_size=2, steps=19, workers=2
    )
    labels = [next(batches)[1]]
    print("reading", flush=True)
    {then}
    labels += [batch[1] for batch in batches]
    print("read", sum(len(label) for label in labels), flush=True)
"""


def start_script(tmp_path, folder, then=""):
    """Runs a script that has no `if __name__ == "__main__"`, in its own group."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT).format(folder=folder, then=then))
    return subprocess.Popen(
        [sys.executable, script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def group_is_empty(group):
    """Whether no process of a group is left, after at most ten seconds."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def read_until(process, word):
    for line in process.stdout:
        if line.startswith(word):
            return
    raise AssertionError(process.stderr.read())


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(tmp_path, folder):
    process = start_script(tmp_path, folder, then="time.sleep(60)")
    read_until(process, "reading")
    process.kill()
    process.communicate(timeout=30)
    assert group_is_empty(process.pid)


@pytest.mark.slow
def test_an_interruption_from_the_keyboard_ends_all(tmp_path, folder):
    process = start_script(tmp_path, folder, then="time.sleep(60)")
    read_until(process, "reading")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=30)
    assert process.returncode in (1, -signal.SIGINT)
    assert errors.count("KeyboardInterrupt") == 1
    assert group_is_empty(process.pid)


def test_a_script_needs_no_guard_and_its_workers_leave_signals_to_it(tmp_path, folder):
    """A cluster warns all processes of a job; the main one decides when to stop."""
    handle = "import signal; signal.signal(signal.SIGTERM, lambda *_: None)"
    process = start_script(
        tmp_path, folder, then=f"{handle}; os.killpg(0, signal.SIGTERM)"
    )
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    shown = [line.split()[0] for line in output.splitlines()]
    assert shown == ["main", "reading", "read"]  # the script ran once
    assert output.endswith("read 38\n")
    assert group_is_empty(process.pid)
