"""Accuracies: exact counts, on any number of devices.

The networks here read their logits off a pixel, so that every accuracy can be
computed with NumPy.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import textwrap
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gift_jax.data import preprocess
from gift_jax.evaluators import accuracy, batches
from gift_jax.evaluators.accuracy import Accuracy, AccuracyEvaluator, ranks
from gift_jax.runtime.devices import replicate
from gift_jax.runtime.errors import InputError
from gift_jax.teachers import (
    CallableTeacher,
    FlaxTeacher,
    TeacherError,
    flax_teacher,
)
from tests import launch

ROOT = pathlib.Path(__file__).resolve().parents[2]
NORMALIZATION = preprocess.Normalization((0.5,), (0.25,))
NOT_A_NUMBER = 255  # the pixel whose logits are NaN


class PixelModel(nn.Module):
    """Class c has the logit -(c - pixel - shift)^2."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, inputs, train):
        assert not train
        shift = self.param("shift", nn.initializers.zeros, ())
        pixels = jnp.round(255 * (0.25 * inputs[:, 0, 0, 0] + 0.5))
        pixels = jnp.where(pixels == NOT_A_NUMBER, jnp.nan, pixels)
        classes = jnp.arange(self.num_classes)
        return -((classes[None] - pixels[:, None] - shift) ** 2)


class ConstantModel(nn.Module):
    """All logits are zero, also those of padded images."""

    @nn.compact
    def __call__(self, inputs, train):
        return jnp.zeros((len(inputs), 10))


class Split:
    """As much of `ImageSplit` as the evaluator needs."""

    is_in_memory = True

    def __init__(self, pixels, labels):
        self.pixels = np.asarray(pixels, np.uint8)
        self.labels = np.asarray(labels, np.int32)
        self.reads = []

    def __len__(self):
        return len(self.labels)

    def labels_of(self, indices):
        return self.labels[np.asarray(indices, int)]

    def images(self, indices, threads=None):
        indices = np.asarray(indices)
        self.reads.extend(indices.tolist())
        return np.tile(self.pixels[indices][:, None, None, None], (1, 2, 2, 1))


def random_split(size, num_classes=10):
    rng = np.random.default_rng(size)
    return Split(*rng.integers(0, num_classes, (2, size)))


def evaluator(split, *, num_devices=1, batch_size=8):
    devices = jax.devices()[:num_devices]
    return AccuracyEvaluator(
        split, NORMALIZATION, devices=devices, batch_size=batch_size
    )


def shifted(shift):
    return {"params": {"shift": jnp.float32(shift)}}


def expected_accuracy(split, num_classes=10, shift=0):
    pixels, classes = split.pixels.astype(float)[:, None], np.arange(num_classes)
    order = np.argsort((classes - pixels - shift) ** 2, axis=1, kind="stable")
    hits = order == split.labels[:, None]
    return Accuracy(
        top1=100 * int(hits[:, :1].sum()) / len(split),
        top5=100 * int(hits[:, :5].sum()) / len(split),
        count=len(split),
    )


# --- ranks --------------------------------------------------------------------------


def expected_ranks(logits, labels):
    """By a stable sort, in which NaN comes first, as it does for `argmax`."""
    keys = np.where(np.isnan(logits), -np.inf, -logits)
    ranks = []
    for row, key, label in zip(logits, keys, labels, strict=True):
        order = np.lexsort((np.arange(len(row)), key, ~np.isnan(row)))
        place = order.tolist().index(label)
        ranks.append(len(row) if np.isnan(row[label]) else place)
    return ranks


@pytest.mark.parametrize("num_classes", [1, 2, 3, 7])
def test_ranks_equal_a_stable_sort(num_classes):
    logits = hnp.arrays(
        np.float32,
        (6, num_classes),
        elements=st.sampled_from([0.0, -0.0, 1.0, 2.5, -3.0, np.inf, -np.inf, np.nan]),
    )
    labels = hnp.arrays(np.int32, 6, elements=st.integers(0, num_classes - 1))
    jitted = jax.jit(ranks)

    @settings(deadline=None, max_examples=100)
    @given(logits, labels)
    def check(logits, labels):
        np.testing.assert_array_equal(
            jitted(logits, labels), expected_ranks(logits, labels)
        )

    check()


def test_ranks_agree_with_argmax_and_top_k():
    # Few values, so that there are many ties.
    logits = jnp.asarray(
        np.random.default_rng(0).integers(0, 4, (200, 10)), jnp.float32
    )
    labels = jnp.asarray(np.random.default_rng(1).integers(0, 10, 200))
    found = ranks(logits, labels)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found == 0, jnp.argmax(logits, axis=1) == labels)
    _, top5 = jax.lax.top_k(logits, 5)
    np.testing.assert_array_equal(found < 5, (top5 == labels[:, None]).any(axis=1))


def test_ranks_of_half_precision_logits():
    logits = jnp.array([[0.1, 0.3, 0.2]], jnp.bfloat16)
    assert [int(ranks(logits, jnp.array([i]))[0]) for i in range(3)] == [
        2,
        0,
        1,
    ]


# --- Accuracies ---------------------------------------------------------------------


# Less than an image a device, as many as fit, and a rest that is padded.
@pytest.mark.parametrize(
    ("size", "num_devices"), [(1, 1), (37, 1), (7, 4), (16, 8), (37, 8)]
)
def test_every_image_counts_once(size, num_devices):
    split = random_split(size)
    measured = evaluator(split, num_devices=num_devices).measure(
        PixelModel(), shifted(0)
    )
    assert measured == expected_accuracy(split)


@pytest.mark.parametrize("batch_size", [1, 3, 37, 1000])
def test_the_batch_size_does_not_matter(batch_size):
    split = random_split(37)
    evaluate_split = evaluator(split, num_devices=2, batch_size=batch_size)
    assert evaluate_split.measure(PixelModel(), shifted(0)) == expected_accuracy(split)


def test_accuracies_by_hand():
    # Pixel 0 ranks the classes 0, 1, 2, ...; three hits, and one more in the top 5.
    split = Split(pixels=[0, 0, 0, 0, 3, 9], labels=[0, 4, 5, 9, 3, 9])
    measured = evaluator(split).measure(PixelModel(), shifted(0))
    assert measured == Accuracy(top1=100 * 3 / 6, top5=100 * 4 / 6, count=6)


def test_one_evaluator_measures_many_networks():
    split = random_split(37)
    evaluate_split = evaluator(split, num_devices=4)
    for shift in (0, 1, -2):
        assert evaluate_split.measure(
            PixelModel(), shifted(shift)
        ) == expected_accuracy(split, shift=shift)
    wider = expected_accuracy(split, num_classes=12, shift=1)
    assert evaluate_split.measure(PixelModel(12), shifted(1)) == wider


@pytest.mark.parametrize("num_devices", [1, 8])
def test_padded_images_never_count(num_devices):
    # With constant logits class 0 is first, and the padding is a hit too.
    labels = np.arange(37) % 10
    measured = evaluator(Split(labels, labels), num_devices=num_devices).measure(
        ConstantModel(), {}
    )
    assert measured == Accuracy(100 * 4 / 37, 100 * 20 / 37, 37)


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_few_classes_are_all_in_the_top_5(num_classes):
    split = random_split(20, num_classes)
    measured = evaluator(split).measure(PixelModel(num_classes), shifted(0))
    assert measured == expected_accuracy(split, num_classes)
    assert measured.top5 == 100


@pytest.mark.parametrize("num_classes", [3, 10])
def test_logits_that_are_nan_are_never_a_hit(num_classes):
    split = Split(pixels=[NOT_A_NUMBER] * 3 + [1], labels=[0, 1, 2, 1])
    measured = evaluator(split).measure(PixelModel(num_classes), shifted(0))
    assert measured == Accuracy(top1=25.0, top5=25.0, count=4)


def test_a_student_is_measured_with_the_weights_it_is_evaluated_with():
    split = random_split(37)

    class State:
        evaluation_variables = shifted(1)
        variables = shifted(0)

    expected = expected_accuracy(split, shift=1)
    assert expected != expected_accuracy(split)
    numbers = evaluator(split)(PixelModel(), State())
    assert numbers == {"top1": expected.top1, "top5": expected.top5}


# --- Teachers -----------------------------------------------------------------------


def plain_teacher(shift, num_classes=10):
    """`PixelModel` as a function in NumPy of pixels in [0, 1]."""

    def answer(pixels):
        pixels = np.round(255 * pixels[:, 0, 0, :1])
        return -((np.arange(num_classes) - pixels - shift) ** 2)

    return CallableTeacher("plain", answer, (2, 2, 1), num_classes)


@pytest.mark.parametrize("num_devices", [1, 4])
@pytest.mark.parametrize("resident_bytes", [0, 2**30])
def test_any_teacher_is_measured_with_its_own_preprocessing(
    monkeypatch, num_devices, resident_bytes
):
    monkeypatch.setattr(batches, "RESIDENT_BYTES", resident_bytes)
    split = random_split(37)
    other = preprocess.Normalization((0.1,), (0.9,))  # the student's
    devices = jax.devices()[:num_devices]
    measures = AccuracyEvaluator(split, other, devices=devices, batch_size=8)
    expected = expected_accuracy(split, shift=1)
    network = FlaxTeacher("flax", PixelModel(), shifted(1), NORMALIZATION)
    assert measures.measure_teacher(network) == expected
    assert measures.measure_teacher(plain_teacher(1)) == expected
    assert measures.measure_teacher(plain_teacher(0)) == expected_accuracy(split)


def test_a_teacher_that_cannot_answer_is_named():
    broken = CallableTeacher("broken", lambda images: images, (2, 2, 1), 10)
    with pytest.raises(TeacherError, match="the teacher broken returns shape"):
        evaluator(random_split(5)).measure_teacher(broken)


# --- Where the images are kept ------------------------------------------------------


def test_a_small_split_is_read_once_and_stays_on_the_devices():
    split = random_split(37)
    devices = jax.devices()[2:6]
    evaluate_split = AccuracyEvaluator(
        split, NORMALIZATION, devices=devices, batch_size=8
    )
    split.reads.clear()
    variables = replicate(shifted(0), devices)
    expected = expected_accuracy(split)
    assert evaluate_split.measure(PixelModel(), variables) == expected
    with (
        jax.transfer_guard_host_to_device("disallow"),
        jax.transfer_guard_device_to_device("disallow"),
    ):
        assert evaluate_split.measure(PixelModel(), variables) == expected
    assert split.reads == []


@pytest.mark.parametrize("num_devices", [1, 4])
def test_a_large_split_is_streamed_with_the_same_result(monkeypatch, num_devices):
    split = random_split(37)
    # An image has 4 bytes, and every device holds its share.
    limit = -(-37 * 4 // num_devices)
    monkeypatch.setattr(batches, "RESIDENT_BYTES", limit - 1)
    streaming = evaluator(split, num_devices=num_devices)
    for _ in range(2):
        split.reads.clear()
        assert streaming.measure(PixelModel(), shifted(0)) == expected_accuracy(split)
        assert split.reads == list(range(37))
    del streaming  # what looks at the same images would share them
    monkeypatch.setattr(batches, "RESIDENT_BYTES", limit)
    resident = evaluator(split, num_devices=num_devices)
    split.reads.clear()
    assert resident.measure(PixelModel(), shifted(0)) == expected_accuracy(split)
    assert split.reads == []


def test_a_count_that_does_not_add_up_is_an_error():
    split = random_split(8)
    split.labels[3] = -1
    with pytest.raises(AssertionError, match="counted 7 of 8 test images"):
        evaluator(split).measure(PixelModel(), shifted(0))


# --- Several hosts ------------------------------------------------------------------

HOST = """
    import sys
    import jax
    from gift_jax.evaluators import accuracy, batches
    from gift_jax.runtime import cluster, hosts
    from gift_jax.teachers import FlaxTeacher
    import tests_of_evaluate as tests

    process_id, address = int(sys.argv[1]), sys.argv[2]
    jax.config.update("jax_num_cpu_devices", 2)
    cluster.join(address, 2, process_id)
    for resident in (2**30, 0):
        batches.RESIDENT_BYTES = resident
        split = tests.random_split(37)
        evaluator = accuracy.AccuracyEvaluator(
            split,
            tests.NORMALIZATION,
            devices=hosts.devices(jax.local_devices()),
            batch_size=8,
        )
        expected = tests.expected_accuracy(split, shift=1)
        model, variables = tests.PixelModel(), tests.shifted(1)
        assert evaluator.measure(model, variables) == expected
        flax_teacher = FlaxTeacher("one", model, variables, tests.NORMALIZATION)
        for teacher in (flax_teacher, tests.plain_teacher(1)):
            assert evaluator.measure_teacher(teacher) == expected, teacher
        own = hosts.share(37)
        assert set(split.reads) == {0, *own}, (own, split.reads)
    print("measured")
"""


def test_every_host_reads_its_part_and_all_get_the_accuracy_of_the_whole(tmp_path):
    shutil.copy(__file__, tmp_path / "tests_of_evaluate.py")
    (tmp_path / "host.py").write_text(textwrap.dedent(HOST))
    address = f"localhost:{launch.free_port()}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("XLA_FLAGS", None)  # the eight devices of the other tests
    processes = [
        subprocess.Popen(
            [sys.executable, "host.py", str(number), address],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for process in processes:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert output.endswith("measured\n")


@pytest.mark.parametrize("divisor", [1, 255])
def test_arrays_are_measured_in_one_call(divisor):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 10, (23, 2, 2, 1)).astype(np.uint8)
    labels = rng.integers(0, 10, 23)
    state = types.SimpleNamespace(
        model=PixelModel(), evaluation_variables={"params": {"shift": jnp.zeros(())}}
    )
    images = pixels if divisor == 1 else pixels.astype(np.float32) / divisor
    found = accuracy.evaluate(state, images, labels, NORMALIZATION, batch_size=10)
    top1 = 100 * np.mean(pixels[:, 0, 0, 0] == labels)
    assert 0 < top1 == pytest.approx(found.top1)
    assert found.top5 > found.top1
    assert found.count == 23


def test_arrays_of_another_state_are_measured_with_the_same_program():
    images, labels = np.zeros((23, 2, 2, 1), np.uint8), np.zeros(23, np.int32)
    program = flax_teacher._program(PixelModel(7), NORMALIZATION)
    before = program._cache_size()
    for shift, top1 in ((0.0, 100.0), (1.0, 0.0)):
        state = types.SimpleNamespace(
            model=PixelModel(7), evaluation_variables=shifted(shift)
        )
        transform = preprocess.Normalization((0.5,), (0.25,))
        found = accuracy.evaluate(state, images, labels, transform, batch_size=10)
        assert found.top1 == top1
    # The last batch of three images is none of another size.
    assert program._cache_size() == before + 1


@pytest.mark.parametrize("num_classes", [3, 10])
def test_arrays_with_nan_logits_are_no_hits(num_classes):
    split = Split([NOT_A_NUMBER] * 3 + [1], [0, 1, 2, 1])
    state = types.SimpleNamespace(
        model=PixelModel(num_classes), evaluation_variables=shifted(0)
    )
    found = accuracy.evaluate(
        state, split.images(range(4)), split.labels, NORMALIZATION
    )
    assert found == accuracy.Accuracy(25.0, 25.0, 4)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.full((3, 2, 2, 1), 200.0), np.zeros(3, int), "up to 200.*divide by 255"),
        (np.full((3, 2, 2, 1), 200), np.zeros(3, int), "divide by 255, or give uint8"),
        (np.full((3, 2, 2, 1), np.nan), np.zeros(3, int), "up to nan, expected uint8"),
        (np.zeros((0, 2, 2, 1)), np.zeros(0, int), r"shape \(0, 2, 2, 1\), expected"),
        (np.zeros((3, 2, 2)), np.zeros(3, int), r"expected \(N, H, W, C\) with N > 0"),
        (np.zeros((3, 2, 2, 1)), np.full(3, 10), r"expected classes in \[0, 9\]"),
        (
            np.zeros((3, 2, 2, 1)),
            np.zeros(2, int),
            r"expected integers of shape \(3,\)",
        ),
    ],
)
def test_arrays_of_another_range_or_number(images, labels, message):
    state = types.SimpleNamespace(model=PixelModel(), evaluation_variables=shifted(0))
    with pytest.raises(InputError, match=message):
        accuracy.evaluate(state, images, labels, NORMALIZATION)
