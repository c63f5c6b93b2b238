"""Codecs: what is lost, and what never is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gift_jax.runtime import errors
from gift_jax.soft_labels.codecs import (
    FLOAT16,
    UnstorableLogitError,
    encode,
    get_codec,
    stored_bytes,
)

NAMES = ["float16", "int8", "top1", "top3", "top10"]
CLASSES = 17


usual = st.floats(-60, 60, width=32)
anything_storable = st.floats(-65504, 65504, width=32)
few_or_many = st.integers(1, 40)


def rows(values=usual, classes=few_or_many):
    shapes = st.tuples(st.integers(1, 6), classes)
    return arrays.arrays(np.float32, shapes, elements=values)


def round_trip(codec, logits):
    stored = codec.encode(logits)
    assert stored.dtype == codec.dtype
    assert stored.nbytes == len(logits) * codec.row_bytes(logits.shape[1])
    decoded = codec.decode(stored, logits.shape[1])
    assert decoded.dtype == np.float16 and decoded.shape == logits.shape
    return decoded


@given(rows(anything_storable))
def test_float16_is_rounding_to_float16(logits):
    np.testing.assert_array_equal(
        round_trip(FLOAT16, logits), logits.astype(np.float16)
    )


@given(rows(anything_storable))
def test_int8_is_within_half_a_step(logits):
    rounded = logits.astype(np.float16).astype(np.float64)
    spread = rounded.max(axis=1, keepdims=True) - rounded.min(axis=1, keepdims=True)
    # A 255th of the range, rounded up to the next float16.
    step = spread / 255 * (1 + 2**-10) + 2**-24
    decoded = round_trip(get_codec("int8"), logits).astype(np.float64)
    half_a_place = 2**-11 * np.abs(rounded).max(axis=1, keepdims=True) + 2**-25
    assert (np.abs(decoded - rounded) <= step / 2 + 1.001 * half_a_place).all()


@pytest.mark.parametrize("num_classes", [10, 100, 1000])
def test_int8_errors_of_usual_logits(num_classes):
    """The numbers that the documentation states."""
    rng = np.random.default_rng(num_classes)
    logits = rng.normal(0, 8, (100_000 // num_classes, num_classes)).astype(np.float32)
    spread = logits.max(axis=1, keepdims=True) - logits.min(axis=1, keepdims=True)
    no_larger = np.abs(logits).max(axis=1) <= spread[:, 0]
    error = (round_trip(get_codec("int8"), logits) - logits) / spread
    assert np.abs(error[no_larger]).max() < 1 / 340
    assert 1 / 480 < np.abs(error).max() < 1 / 390
    assert 1 / 1000 < np.sqrt(np.mean(error**2)) < 1 / 850


@given(rows(anything_storable, st.integers(10, 40)), st.sampled_from([1, 3, 10]))
def test_topk_keeps_the_largest_and_fills_in_the_mean_of_the_others(logits, k):
    rounded = logits.astype(np.float16)
    decoded = round_trip(get_codec(f"top{k}"), logits)
    for row, kept in zip(rounded.astype(np.float64), decoded, strict=True):
        ordered = np.sort(row)
        others = ordered[: len(row) - k]
        fill = np.float16(others.mean() if len(others) else 0)
        expected = np.sort(np.concatenate([np.full(len(others), fill), ordered[-k:]]))
        np.testing.assert_allclose(np.sort(kept), expected, rtol=2**-10, atol=2**-24)


@given(rows(classes=st.integers(10, 40)), st.sampled_from([1, 3, 10]))
def test_topk_keeps_the_mean_of_a_row(logits, k):
    decoded = round_trip(get_codec(f"top{k}"), logits).astype(np.float64)
    # Each logit, and the mean, is off by half a unit in the last place.
    bound = 2**-10 * np.abs(logits).max(axis=1) + 2**-24
    assert (np.abs(decoded.mean(axis=1) - logits.mean(axis=1)) <= bound).all()


@given(rows())
def test_topk_of_all_classes_is_float16(logits):
    every = get_codec(f"top{logits.shape[1]}")
    np.testing.assert_array_equal(round_trip(every, logits), logits.astype(np.float16))


@given(rows(classes=st.just(CLASSES)), st.sampled_from(NAMES))
def test_the_largest_logit_stays_the_largest(logits, name):
    codec = get_codec(name)
    # Where it is ahead of the others by more than int8 can tell apart.
    logits[np.arange(len(logits)), np.arange(len(logits))] = logits.max() + 1
    predicted = round_trip(codec, logits).argmax(axis=1)
    np.testing.assert_array_equal(predicted, np.arange(len(logits)))


@pytest.mark.parametrize("name", NAMES)
def test_a_row_of_one_value_stays(name):
    logits = np.full((3, CLASSES), 0.1, np.float32)
    np.testing.assert_array_equal(
        round_trip(get_codec(name), logits), logits.astype(np.float16)
    )


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_stored_independently(name):
    codec = get_codec(name)
    logits = np.random.default_rng(0).normal(0, 5, (8, CLASSES)).astype(np.float32)
    stored = codec.encode(logits)
    for row in range(len(logits)):
        np.testing.assert_array_equal(
            codec.encode(logits[row : row + 1])[0], stored[row]
        )


def test_what_cannot_be_stored_is_named_by_view_and_image():
    logits = np.zeros((3, CLASSES), np.float32)
    np.testing.assert_array_equal(encode(FLOAT16, logits, view=0), logits)
    logits[1, 4] = np.inf
    with pytest.raises(errors.InputError, match=r"view 7 hold inf \(image 41, class 4"):
        encode(FLOAT16, logits, view=7, start=40)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 65520.0, -1e9])
def test_what_float16_cannot_store_is_refused(name, value):
    logits = np.zeros((3, CLASSES), np.float32)
    logits[1, 4] = value
    with pytest.raises(UnstorableLogitError) as caught:
        get_codec(name).encode(logits)
    assert (caught.value.row, caught.value.column) == (1, 4)
    np.testing.assert_equal(caught.value.value, float(np.float32(value)))


@pytest.mark.parametrize("name", NAMES)
def test_the_extremes_of_float16_are_stored(name):
    logits = np.zeros((2, CLASSES), np.float32)
    logits[0, :2] = 65519, -65519
    decoded = round_trip(get_codec(name), logits)
    assert np.isfinite(decoded).all()
    assert decoded[0, 0] == 65504


@pytest.mark.parametrize("name", ["int8", "top1", "top3", "top10"])
def test_what_was_never_written_reads_as_nan(name):
    codec = get_codec(name)
    stored = np.full((4, codec.row_bytes(CLASSES)), 255, np.uint8)
    assert np.isnan(codec.decode(stored, CLASSES)).all()


@pytest.mark.parametrize(
    ("name", "num_classes", "row_bytes"),
    [("float16", 1000, 2000), ("int8", 1000, 1004), ("top10", 1000, 42)],
)
def test_row_bytes(name, num_classes, row_bytes):
    assert get_codec(name).row_bytes(num_classes) == row_bytes
    # ImageNet-1k, 10 images a class, 300 views.
    stored = stored_bytes(
        get_codec(name), views=300, num_images=10_000, num_classes=num_classes
    )
    assert stored == 3_000_000 * row_bytes


@pytest.mark.parametrize(("name", "num_classes"), [("top18", 17), ("top1", 2**16 + 1)])
def test_classes_that_topk_is_not_for(name, num_classes):
    codec = get_codec(name)
    message = rf"'{name}' is for .* classes, but there are {num_classes}"
    with pytest.raises(ValueError, match=message):
        codec.row_bytes(num_classes)
    with pytest.raises(ValueError, match=message):
        codec.encode(np.zeros((1, num_classes), np.float32))


@pytest.mark.parametrize(
    "name", ["flaot16", "top0", "top", "topk", "top-1", "top01", ""]
)
def test_unknown_formats_are_refused(name):
    with pytest.raises(ValueError, match=r"unknown relabel\.format .*or topK as top10"):
        get_codec(name)


def test_no_other_fill_keeps_the_direction_as_well_as_the_mean():
    """It is the projection onto what top-k can say; a cosine loss sees all classes."""
    logits = np.random.default_rng(0).gumbel(-3, 2, (50, 1000)).astype(np.float32)

    def cosine(decoded):
        decoded = decoded.astype(np.float64)
        norms = np.linalg.norm(decoded, axis=1) * np.linalg.norm(logits, axis=1)
        return (decoded * logits).sum(axis=1) / norms

    filled = round_trip(get_codec("top100"), logits)
    kept = logits >= np.sort(logits, axis=1)[:, -100:-99]
    for other in (0, -8, logits.min(), logits.mean()):
        assert (cosine(filled) > cosine(np.where(kept, logits, other)) + 1e-4).all()
    assert (cosine(round_trip(get_codec("int8"), logits)) > 0.9999).all()


def test_codes_of_a_row_of_subnormal_steps_do_not_wrap_around():
    logits = np.linspace(0, 3.4e-5, 10, dtype=np.float32)[None]
    codec = get_codec("int8")
    found = codec.decode(codec.encode(logits), 10)
    assert np.abs(found - logits).max() <= 3.4e-5 / 100
