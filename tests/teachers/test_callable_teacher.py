"""Teachers of the user's own: plain functions, found by name, checked, identified."""

import functools
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax.data import info, preprocess
from gift_jax.runtime.errors import InputError
from gift_jax.teachers import CallableTeacher, TeacherError, callable_teacher

SHAPE, CLASSES = (4, 4, 1), 5
DATASET = info.DatasetInfo(
    "made", CLASSES, 4, 1, preprocess.Normalization((0.5,), (0.5,))
)


def answer(images, weights=None):
    """A linear teacher in NumPy."""
    if weights is None:
        weights = np.linspace(-1, 1, 16 * CLASSES).reshape(16, CLASSES)
    return (images.reshape(len(images), -1) - 0.5) @ weights


def make(function, **changes) -> CallableTeacher:
    fields = {"name": "mine", "image_shape": SHAPE, "num_classes": CLASSES}
    return CallableTeacher(function=function, **{**fields, **changes})


def pixels(count=3):
    return np.random.default_rng(0).uniform(size=(count, *SHAPE)).astype(np.float32)


# --- What it is asked, and what it may answer ---------------------------------------


@pytest.mark.parametrize(
    "kind", [np.asarray, jnp.asarray, lambda x: jnp.asarray(x, jnp.bfloat16), list]
)
def test_logits_may_be_of_any_kind_and_come_as_float32(kind):
    logits = make(lambda images: kind(answer(images))).logits(jnp.asarray(pixels()))
    assert isinstance(logits, np.ndarray) and logits.dtype == np.float32
    expected = np.asarray(kind(answer(pixels()))).astype(np.float32)
    np.testing.assert_array_equal(logits, expected)


def test_the_function_gets_pixels_that_it_may_write_to():
    seen = []

    def function(images):
        seen.append((type(images), images.dtype, images.shape))
        images -= 0.5
        return answer(images)

    images = pixels()
    images.flags.writeable = False
    make(function).logits(images)
    assert seen == [(np.ndarray, np.float32, (3, *SHAPE))]
    np.testing.assert_array_equal(images, pixels())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda images: answer(images)[:, :4], r"shape \(3, 4\) for 3 images of 5"),
        (lambda images: answer(images)[:2], r"shape \(2, 5\) for 3 images of 5"),
        (lambda images: answer(images)[0], r"shape \(5,\)"),
        (lambda images: answer(images) * np.nan, "NaN or infinite"),
        (lambda images: answer(images) + np.inf, "NaN or infinite"),
        (lambda images: None, "returns NoneType of dtype object"),
        (lambda images: answer(images) > 0, "dtype bool"),
        (lambda images: [[1, 2], [3]], "is no array"),
    ],
)
def test_other_answers_are_one_error_that_names_the_teacher(function, message):
    with pytest.raises(TeacherError, match=rf"the teacher mine .*{message}") as caught:
        make(function).logits(pixels())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (np.zeros((3, 5)), "is a ndarray, expected a function of images"),
        (None, "is a NoneType"),
        (lambda: None, r"cannot be called \(too many positional arguments\)"),
        (lambda images, train: None, "missing a required argument: 'train'"),
    ],
)
def test_what_is_no_function_of_images_is_refused(function, message):
    with pytest.raises(InputError, match=f"the teacher mine .*{message}"):
        make(function)


def test_an_error_in_the_function_keeps_its_type():
    def broken(images):
        return images.nothing

    with pytest.raises(AttributeError, match="nothing"):
        make(broken).logits(pixels())


# --- By name ------------------------------------------------------------------------

_MODULE = """
import numpy as np

def build():
    weights = np.linspace(-1, {last}, 16 * 5).reshape(16, 5)
    return lambda images: (images.reshape(len(images), -1) - 0.5) @ weights

def takes_more(path):
    return build()

def other():
    return [1, 2]
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    written = []

    def write(name, text=_MODULE, **values):
        (tmp_path / f"{name}.py").write_text(text.format(**{"last": 1, **values}))
        sys.modules.pop(name, None)
        written.append(name)

    yield write
    for name in written:
        sys.modules.pop(name, None)


def test_a_function_of_a_module_is_a_teacher(write):
    write("teacher_found")
    teacher = CallableTeacher.load("teacher_found:build", DATASET)
    assert (teacher.name, teacher.num_classes) == ("teacher_found:build", CLASSES)
    assert tuple(teacher.image_shape) == SHAPE
    expected = answer(pixels()).astype(np.float32)
    np.testing.assert_array_equal(teacher.logits(pixels()), expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("teacher_wrong:built", "did you mean 'build'"),
        ("no_such_teacher:build", "cannot be imported"),
        ("teacher_wrong:takes_more", "called without arguments, and returns"),
        ("teacher_wrong:other", "is a list, expected a function of images"),
        ("teacher_wrong:np", "is a module, expected something to call"),
    ],
)
def test_what_is_no_teacher_is_said(write, name, message):
    write("teacher_wrong")
    with pytest.raises(ValueError, match=message) as caught:
        CallableTeacher.load(name, DATASET)
    assert name.partition(":")[0] in str(caught.value)


# --- Identity -----------------------------------------------------------------------


def test_the_fingerprint_is_that_of_code_and_weights_and_not_of_the_name(write):
    def fingerprint(name, **values):
        write(name, **values)
        return CallableTeacher.load(f"{name}:build", DATASET).fingerprint

    first = fingerprint("teacher_one")
    assert len(first) == 16 and int(first, 16) >= 0
    assert fingerprint("teacher_two") == first  # the same file under another name
    assert fingerprint("teacher_three", text=_MODULE + "\n") != first
    assert fingerprint("teacher_four", last=1.01) != first


def test_a_name_for_messages_that_is_also_a_modules_does_not_count(write):
    write("other")
    __import__("other")
    assert make(answer, name="other").fingerprint == make(answer).fingerprint


@pytest.mark.parametrize("index", [(0, 0), (7, 2), (15, 4)])
def test_a_weight_changes_the_fingerprint(index):
    weights = np.random.default_rng(0).normal(size=(16, CLASSES))
    first = make(functools.partial(answer, weights=weights)).fingerprint
    again = make(functools.partial(answer, weights=weights.copy()), name="other")
    assert again.fingerprint == first
    weights = weights.copy()
    weights[index] += 0.01
    other = make(functools.partial(answer, weights=weights))
    assert other.fingerprint != first


def test_rounding_of_other_devices_does_not_change_the_fingerprint():
    weights = np.random.default_rng(0).normal(size=(16, CLASSES))

    def elsewhere(images):
        noise = np.random.default_rng(1).uniform(-1, 1, (len(images), CLASSES))
        return answer(images, weights) * (1 + 1e-7 * noise)

    here = make(lambda images: answer(images, weights))
    assert make(elsewhere).fingerprint == here.fingerprint


def test_a_fingerprint_of_its_own_stands_for_the_weights():
    class Network:
        def __init__(self, fingerprint):
            self.fingerprint, self.calls = fingerprint, 0

        def __call__(self, images):
            self.calls += 1
            return answer(images)

    first, again, other = Network("a"), Network("a"), Network("b")
    found = [make(network).fingerprint for network in (first, again, other)]
    assert found[0] == found[1] != found[2]
    assert first.calls == 0


def test_a_teacher_that_cannot_answer_has_no_fingerprint():
    with pytest.raises(TeacherError, match=r"shape \(16, 4\) for 16 images of 5"):
        _ = make(lambda images: answer(images)[:, :4]).fingerprint


def test_the_example_of_the_documentation_is_one(write):
    text = callable_teacher.__doc__.split("\n\n")[1]
    lines = [line[4:] for line in text.splitlines()]
    network = """
class Network:
    def predict(self, inputs):
        return inputs.reshape(len(inputs), -1)[:, :5]
load_my_network = Network
"""
    write("teacher_documented", network + "\n".join(lines))
    teacher = CallableTeacher.load("teacher_documented:build", DATASET)
    expected = ((pixels() - 0.5) / 0.25).reshape(3, -1)[:, :5]
    np.testing.assert_allclose(teacher.logits(pixels()), expected, rtol=1e-6)
