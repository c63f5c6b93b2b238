"""The replay property: stored logits are the teacher's on the regenerated view."""

import logging
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax import augment, models
from gift_jax.data import preprocess
from gift_jax.distilled import DistilledDataset, Metadata
from gift_jax.runtime import preemption, units
from gift_jax.runtime.errors import InputError
from gift_jax.soft_labels import relabel, storage, views
from gift_jax.soft_labels import store as store_lib
from gift_jax.soft_labels.base import prefetched
from gift_jax.soft_labels.codecs import FLOAT16
from gift_jax.soft_labels.online import OnlineSoftLabels
from gift_jax.teachers import (
    CallableTeacher,
    FlaxTeacher,
    TeacherOfClasses,
    Transform,
    TransformedTeacher,
    is_traced,
)
from tests import launch

SIDE, NUM_CLASSES, NUM_IMAGES, VIEWS = 8, 5, 21, 3
STUDENT = preprocess.Normalization((0.5,), (0.25,))
SPEC = augment.AugmentSpec(diffaug="flip_crop_cutout")


@pytest.fixture(scope="module")
def data() -> views.TrainData:
    pixels = np.random.default_rng(0).integers(
        0, 256, (NUM_IMAGES, SIDE, SIDE, 1), dtype=np.uint8
    )
    return views.TrainData(
        images=jnp.asarray(pixels),
        labels=jnp.arange(NUM_IMAGES, dtype=jnp.int32) % NUM_CLASSES,
        view_key=jax.random.key(5),
    )


@pytest.fixture(scope="module")
def teacher() -> FlaxTeacher:
    model = models.create_model(
        "conv1", num_classes=NUM_CLASSES, image_size=SIDE, width=8
    )
    variables = models.init_variables(
        model, jax.random.key(1), image_size=SIDE, channels=1
    )
    own = preprocess.Normalization((0.1,), (0.7,))
    return FlaxTeacher("conv1", model, variables, own)


def label_views(teacher, data, num_devices=1):
    return relabel.make_label_views(
        teacher,
        data,
        views.AugmentedViews(SPEC, STUDENT),
        transform=STUDENT,
        devices=jax.devices()[:num_devices],
    )


def open_store(path, codec=FLOAT16):
    return store_lib.open_store(
        path,
        views=VIEWS,
        num_images=NUM_IMAGES,
        num_classes=NUM_CLASSES,
        codec=codec,
    )


def any_logits(view, indices):
    """What a teacher could say; a function of the view and the image."""
    classes = np.arange(NUM_CLASSES)
    return np.sin(view + (1 + indices[:, None]) * (1 + classes)).astype(np.float32)


def expected_logits(teacher, data, view):
    """The teacher on the view, step by step: augment, to pixels, to its inputs."""
    images = augment.make_views(
        data.view_key,
        data.images.astype(jnp.float32) / 255 * 4 - 2,  # STUDENT, by hand
        view,
        jnp.arange(NUM_IMAGES),
        SPEC,
    )
    pixels = (images + 2) / 4
    return teacher.model.apply(teacher.variables, (pixels - 0.1) / 0.7, train=False)


@pytest.mark.parametrize(
    ("num_devices", "batch_size"),
    [(1, 64), pytest.param(2, 8, marks=pytest.mark.slow), (8, 8)],
)
def test_stored_logits_are_the_teachers_on_the_regenerated_view(
    teacher, data, tmp_path, num_devices, batch_size
):
    store = open_store(tmp_path / "logits")
    relabel.relabel(
        store, label_views(teacher, data, num_devices), batch_size=batch_size
    )
    for view in range(VIEWS):
        expected = expected_logits(teacher, data, view)
        stored = store.read(view)
        assert stored.dtype == np.float16
        # Half a unit in the last place of float16.
        np.testing.assert_allclose(stored, expected, rtol=2**-11, atol=1e-4)


def plain(teacher):
    """The same teacher as a function in NumPy, of pixels."""

    def answer(pixels):
        assert isinstance(pixels, np.ndarray) and pixels.dtype == np.float32
        inputs = (pixels - np.float32(0.1)) / np.float32(0.7)
        return np.asarray(teacher.model.apply(teacher.variables, inputs, train=False))

    return CallableTeacher("plain", answer, (SIDE, SIDE, 1), NUM_CLASSES)


@pytest.mark.parametrize(
    ("num_devices", "batch_size"), [pytest.param(1, 64, marks=pytest.mark.slow), (2, 8)]
)
def test_any_other_teacher_is_given_the_pixels_of_the_views(
    teacher, data, tmp_path, num_devices, batch_size
):
    store = open_store(tmp_path / "logits")
    label = label_views(plain(teacher), data, num_devices)
    relabel.relabel(store, label, batch_size=batch_size)
    for view in range(VIEWS):
        np.testing.assert_allclose(
            store.read(view), expected_logits(teacher, data, view), 2**-11, 1e-4
        )


@pytest.mark.parametrize(
    "wrap",
    [
        lambda teacher: TeacherOfClasses(teacher, (3, 0)),
        lambda teacher: TransformedTeacher(teacher, Transform(SIDE + 4, SIDE)),
    ],
    ids=["of_classes", "transformed"],
)
def test_a_teacher_behind_another_labels_on_all_devices(wrap, teacher, data):
    wrapped, indices = wrap(teacher), np.arange(8)
    found = label_views(wrapped, data, 4)(0, indices)
    assert len(found.sharding.device_set) == 4
    views_of = views.AugmentedViews(SPEC, STUDENT).images(data, 0, indices)
    pixels = (views_of + 2) / 4  # STUDENT, by hand
    np.testing.assert_allclose(found, wrapped.logits(pixels), rtol=1e-4, atol=1e-5)
    # What JAX cannot trace stays so behind another.
    assert not is_traced(wrap(plain(teacher)))


@pytest.mark.parametrize("kind", ["flax", "plain"])
def test_online_labels_are_the_stored_ones(teacher, data, tmp_path, kind):
    label = label_views(teacher if kind == "flax" else plain(teacher), data)
    store = open_store(tmp_path / "logits")
    relabel.relabel(store, label, batch_size=8)
    online = OnlineSoftLabels(label, NUM_IMAGES, VIEWS, batch_size=8)
    for view, labels in enumerate(prefetched(online.start_reading, range(VIEWS))):
        np.testing.assert_array_equal(labels.logits, store.read(view))


@pytest.mark.parametrize("kind", ["flax", "plain"])
def test_labels_for_a_notebook_are_the_stored_ones(teacher, tmp_path, kind):
    asked = teacher if kind == "flax" else plain(teacher)
    pixels = np.random.default_rng(0).integers(
        0, 256, (NUM_IMAGES, SIDE, SIDE, 1), dtype=np.uint8
    )
    dataset = DistilledDataset(
        images=pixels.astype(np.float32) / 255,
        labels=np.arange(NUM_IMAGES) % NUM_CLASSES,
        metadata=Metadata("made", NUM_CLASSES, "random", "test"),
        preprocess=STUDENT,
    )
    labels = relabel.relabel_views(
        asked, dataset, augment=SPEC, views=VIEWS, seed=4, batch_size=8
    )
    assert labels.views == VIEWS
    data, normalization = views.train_data(dataset, seed=4)
    assert normalization == STUDENT
    store = open_store(tmp_path / "logits")
    relabel.relabel(store, label_views(asked, data), batch_size=8)
    for view in range(VIEWS):
        np.testing.assert_array_equal(labels.logits[view], store.read(view))
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(labels.logits[0], labels.logits[1])


@pytest.mark.parametrize("number", [{"views": 0}, {"batch_size": 0}])
def test_labels_for_a_notebook_are_of_some_views(teacher, number):
    options = {"augment": augment.AugmentSpec(), "views": 1, "seed": 0, **number}
    with pytest.raises(InputError, match="is 0, expected at least 1"):
        relabel.relabel_views(teacher, None, **options)


def test_views_differ_and_so_do_their_logits(teacher, data):
    label = label_views(teacher, data)
    rows = np.arange(NUM_IMAGES)
    assert np.abs(label(0, rows) - label(1, rows)).max() > 0.01


def test_relabelling_goes_on_at_the_first_missing_chunk(
    teacher, data, tmp_path, monkeypatch
):
    monkeypatch.setattr(store_lib, "_CHUNK_BYTES", 8 * 2 * NUM_CLASSES)
    label = label_views(teacher, data)
    whole = open_store(tmp_path / "whole")
    relabel.relabel(whole, label, batch_size=8)

    calls = []

    def interrupted(view, indices):
        calls.append((view, int(indices[0])))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return label(view, indices)

    store = open_store(tmp_path / "logits")
    with pytest.raises(KeyboardInterrupt):
        relabel.relabel(store, interrupted, batch_size=8)
    # Three chunks a view, of 7 rows each; four were written.
    assert store.missing_chunks()[0] == (1, 7, 14)

    resumed = open_store(tmp_path / "logits")
    calls.clear()
    relabel.relabel(
        resumed, lambda v, i: calls.append((v, int(i[0]))) or label(v, i), batch_size=8
    )
    assert calls == [(1, 7), (1, 14), (2, 0), (2, 7), (2, 14)]
    for view in range(VIEWS):
        np.testing.assert_array_equal(resumed.read(view), whole.read(view))


def test_nan_in_the_teachers_logits_is_refused_before_it_is_stored(tmp_path):
    store = open_store(tmp_path / "logits")

    def broken(view, indices):
        logits = np.zeros((len(indices), NUM_CLASSES), np.float32)
        logits[4, 2] = np.nan
        return logits

    with pytest.raises(ValueError, match=r"view 0 hold nan \(image 4, class 2\)"):
        relabel.relabel(store, broken, batch_size=32)
    assert len(store.missing_chunks()) == VIEWS


# --- Size, space and interruption ---------------------------------------------------


@pytest.fixture
def small_chunks(monkeypatch):
    """Three chunks a view, of seven rows each."""
    monkeypatch.setattr(store_lib, "_CHUNK_BYTES", 8 * 2 * NUM_CLASSES)


def test_the_size_is_said_before(tmp_path, caplog, small_chunks):
    store = open_store(tmp_path / "logits")
    store.write(0, 0, any_logits(0, np.arange(7)))
    with caplog.at_level(logging.INFO, "gift_jax.soft_labels.relabel"):
        relabel.relabel(store, any_logits, batch_size=8)
    size, time = [record.getMessage() for record in caplog.records]
    assert size == (
        "soft labels: 630 B (21 images x 5 classes x 3 views in float16), of "
        f"which 560 B are to be made, in {tmp_path}/logits"
    )
    assert time.startswith("relabelling takes about")


def test_imagenet_is_six_gigabytes(tmp_path):
    store = store_lib.open_store(
        tmp_path / "logits", views=300, num_images=10_000, num_classes=1000
    )
    assert units.readable_size(store.total_bytes) == "6 GB"
    assert store.chunk_bytes <= 16 * 2**20


def test_a_disk_that_is_too_small_is_refused_before_any_work(
    tmp_path, monkeypatch, small_chunks
):
    store = open_store(tmp_path / "logits")
    for start in (0, 7):
        store.write(0, start, any_logits(0, np.arange(start, start + 7)))
    # Seven chunks of 70 bytes are missing.
    monkeypatch.setattr(storage, "free_bytes", lambda location: 489)
    calls = []
    with pytest.raises(ValueError, match=r"490 B more .* 489 B free") as caught:
        relabel.relabel(store, lambda *a: calls.append(a), batch_size=8)
    for field in ("relabel.format", "relabel.views", "relabel.store"):
        assert field in str(caught.value)
    assert not calls
    monkeypatch.setattr(storage, "free_bytes", lambda location: 490)
    relabel.relabel(store, any_logits, batch_size=8)
    assert store.missing_chunks() == []


def test_what_was_labelled_before_a_failure_is_stored(tmp_path, small_chunks):
    store = open_store(tmp_path / "logits")

    def fails_late(view, indices):
        if view == 1:
            raise ArithmeticError
        return any_logits(view, indices)

    with pytest.raises(ArithmeticError):
        relabel.relabel(store, fails_late, batch_size=8)
    assert store.missing_chunks()[0] == (1, 0, 7)


def test_a_job_that_is_asked_to_stop_stops_after_the_chunk(
    tmp_path, monkeypatch, small_chunks
):
    store = open_store(tmp_path / "logits")
    labelled = []

    def stops_later(view, indices):
        labelled.append(view)
        monkeypatch.setattr(preemption, "requested", lambda: len(labelled) >= 5)
        return any_logits(view, indices)

    with pytest.raises(preemption.PreemptedError):
        relabel.relabel(store, stops_later, batch_size=8)
    assert store.missing_chunks()[0] == (1, 14, 21)
    monkeypatch.setattr(preemption, "requested", lambda: False)
    relabel.relabel(store, any_logits, batch_size=8)
    for view in range(VIEWS):
        expected = any_logits(view, np.arange(NUM_IMAGES)).astype(np.float16)
        np.testing.assert_array_equal(store.read(view), expected)


_MEASURE = """
import pathlib, sys
from experiments import relabel_scale
from gift_jax.runtime import allocator
from gift_jax.soft_labels import codecs

allocator.keep_freed_memory()  # as the main command
# 600 MB of labels; the images are small, so that the teacher is quick.
costs = relabel_scale.run(
    relabel_scale.Size(side=16), codecs.FLOAT16, pathlib.Path(sys.argv[1])
)
alone, relabelling, reading = costs.values()
print(relabelling.peak - alone.peak, reading.peak - alone.peak)
"""


@pytest.mark.slow
def test_memory_is_bounded_by_the_chunk_at_the_size_of_imagenet(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path)],
        cwd=pathlib.Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    relabelling, reading = map(int, done.stdout.split())
    # A chunk is 20 MB as float32, a view 20 MB as float16; there are two of them, and
    # what they are made from.
    assert relabelling < 150e6
    assert reading < 150e6


# --- Several hosts ------------------------------------------------------------------

_HOST = """
import pathlib, sys
import numpy as np
from gift_jax.runtime import cluster, hosts
from gift_jax.soft_labels import relabel, store as soft_labels
from tests.soft_labels.test_relabel import any_logits, open_store

port, index, count, directory = sys.argv[1:]
directory = pathlib.Path(directory)
cluster.join(f"localhost:{port}", int(count), int(index))
soft_labels._CHUNK_BYTES = 8 * 2 * 5
with (directory / f"labelled_{index}").open("w") as log:

    def label(view, indices):
        print(view, indices[0], file=log)
        return any_logits(view, indices)

    store = open_store(directory / "logits")
    hosts.barrier("opened")
    relabel.relabel(store, label, batch_size=8)
# No host goes on before all have written.
assert store.missing_chunks() == []
hosts.barrier("checked")
"""


@pytest.mark.slow
def test_hosts_label_a_part_each_and_every_chunk_once(tmp_path, monkeypatch):
    monkeypatch.setattr(store_lib, "_CHUNK_BYTES", 8 * 2 * NUM_CLASSES)
    store = open_store(tmp_path / "logits")
    store.write(1, 7, any_logits(1, np.arange(7, 14)))
    port = launch.free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _HOST, *map(str, (port, index, 3, tmp_path))],
            cwd=pathlib.Path(__file__).parents[2],
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(3)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    parts = [
        (tmp_path / f"labelled_{index}").read_text().splitlines() for index in range(3)
    ]
    # Nine chunks, of which one was written before.
    assert sorted(map(len, parts)) == [2, 3, 3]
    assert len({line for part in parts for line in part}) == 8
    for view in range(VIEWS):
        expected = any_logits(view, np.arange(NUM_IMAGES)).astype(np.float16)
        np.testing.assert_array_equal(store.read(view), expected)
