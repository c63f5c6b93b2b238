"""The checks of a teacher: class order, class count, accuracy."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax.data import preprocess, real
from gift_jax.distilled.dataset import DistilledDataset, Metadata
from gift_jax.teachers import CallableTeacher, FlaxTeacher, TeacherError
from gift_jax.teachers.check import (
    check_on_distilled,
    check_on_real,
    least_accuracy,
    renumbering_hint,
)

NORMALIZATION = preprocess.Normalization((0.5,), (0.5,))


class PixelClassifier(nn.Module):
    """Class c where pixel c is the brightest, renumbered by `order`."""

    order: tuple[int, ...]

    @nn.compact
    def __call__(self, images, train):
        pixels = images.reshape(len(images), -1)[:, : len(self.order)]
        return pixels[:, jnp.array(self.order)]


def make_teacher(model: nn.Module, transform=NORMALIZATION) -> FlaxTeacher:
    return FlaxTeacher("fake", model, {}, transform)


def make_dataset(num_classes: int = 5, ipc: int = 5) -> DistilledDataset:
    """Images of class c have pixel c bright."""
    labels = np.repeat(np.arange(num_classes), ipc)
    images = np.full((len(labels), 4, 4, 1), 0.1, np.float32)
    images.reshape(len(labels), -1)[np.arange(len(labels)), labels] = 0.9
    return DistilledDataset(
        images=images,
        labels=labels,
        metadata=Metadata("digits", num_classes, "random", "test"),
        preprocess=NORMALIZATION,
    )


def test_a_good_teacher_passes_with_its_accuracy_and_no_word(caplog):
    model = PixelClassifier((0, 1, 2, 3, 4))
    accuracy = check_on_distilled(make_teacher(model), make_dataset())
    assert accuracy == 100.0
    assert not caplog.records


def test_a_permuted_class_order_is_refused_and_the_permutation_shown():
    # Output k looks at pixel order[k], so that class order[k] is predicted as k.
    model = PixelClassifier((1, 2, 3, 4, 0))
    with pytest.raises(TeacherError) as caught:
        check_on_distilled(make_teacher(model), make_dataset())
    message = str(caught.value)
    assert "0.0% of the distilled images" in message
    assert "class order" in message
    assert "0->4, 1->0, 2->1, 3->2, 4->3 renumbered it would be 100.0%" in message
    assert "teacher.min_accuracy" in message


def test_a_teacher_that_knows_nothing_is_refused_without_a_permutation():
    class Constant(nn.Module):
        @nn.compact
        def __call__(self, images, train):
            return jnp.tile(jnp.arange(5.0), (len(images), 1))

    with pytest.raises(TeacherError, match="No renumbering"):
        check_on_distilled(make_teacher(Constant()), make_dataset())
    # Chance for 5 classes is 20%; a user who insists may go on.
    accuracy = check_on_distilled(
        make_teacher(Constant()), make_dataset(), min_accuracy=20.0
    )
    assert accuracy == pytest.approx(20.0)


def test_a_teacher_for_another_number_of_classes_is_refused():
    model = PixelClassifier((0, 1, 2))
    with pytest.raises(TeacherError, match=r"tells 3 classes .* of 5 classes"):
        check_on_distilled(make_teacher(model), make_dataset())


def test_nan_logits_are_refused():
    class Broken(nn.Module):
        @nn.compact
        def __call__(self, images, train):
            return jnp.full((len(images), 5), jnp.nan)

    with pytest.raises(TeacherError, match="NaN"):
        check_on_distilled(make_teacher(Broken()), make_dataset())


def pixel_values(order):
    """`PixelClassifier` as a function in NumPy."""
    return CallableTeacher(
        "plain",
        lambda images: images.reshape(len(images), -1)[:, list(order)],
        (4, 4, 1),
        len(order),
    )


def test_any_teacher_is_checked():
    dataset = make_dataset(ipc=60)  # more than one batch
    assert check_on_distilled(pixel_values((0, 1, 2, 3, 4)), dataset) == 100.0
    with pytest.raises(TeacherError, match=r"teacher plain .* 0->4, 1->0, 2->1"):
        check_on_distilled(pixel_values((1, 2, 3, 4, 0)), dataset)
    with pytest.raises(TeacherError, match=r"tells 3 classes .* of 5 classes"):
        check_on_distilled(pixel_values((0, 1, 2)), dataset)


def test_a_teacher_with_other_preprocessing_gets_the_pixels():
    class Brightest(nn.Module):
        @nn.compact
        def __call__(self, images, train):
            # Of pixels of 0.1 and 0.9 under its own normalisation.
            values = images.reshape(len(images), -1)[:, :5]
            return -jnp.abs(values - (0.9 - 0.2) / 0.4)

    own = preprocess.Normalization((0.2,), (0.4,))
    assert check_on_distilled(make_teacher(Brightest(), own), make_dataset()) == 100.0


def test_whitened_images_are_given_as_pixels():
    eye = np.eye(16, dtype=np.float32)
    whitening = preprocess.Whitening(NORMALIZATION, np.zeros(16, "f4"), -eye, -eye)
    plain = make_dataset()
    whitened = DistilledDataset(
        whitening.apply(plain.images), plain.labels, plain.metadata, whitening
    )
    # Class 0, whose first pixel is the brightest, by turned signs the darkest.
    assert whitened.inputs().reshape(25, -1)[0].argmin() == 0
    assert check_on_distilled(pixel_values(range(5)), whitened) == 100.0


@pytest.mark.parametrize("num_images", [300, 10_000])
def test_real_images_are_taken_at_equal_distances(num_images):
    data = real.load_dataset("digits")
    expected = data.test.images(
        np.linspace(0, len(data.test) - 1, min(num_images, len(data.test))).astype(int)
    )
    seen = []

    def answer(images):
        seen.append(images)
        return np.eye(10)[np.zeros(len(images), int)]

    teacher = CallableTeacher("zero", answer, (8, 8, 1), 10)
    found = check_on_real(teacher, data, num_images=num_images, min_accuracy=0)
    zeros = data.test.labels[
        np.linspace(0, len(data.test) - 1, min(num_images, len(data.test))).astype(int)
    ]
    assert found == pytest.approx(100 * np.mean(zeros == 0))
    images = np.concatenate(seen)[: len(expected)]
    np.testing.assert_allclose(images * 255, expected, atol=1e-4)


def test_real_images_are_checked_too():
    data = real.load_dataset("digits")

    class Permuted(nn.Module):
        """Knows the label of every test image, but numbers classes otherwise."""

        @nn.compact
        def __call__(self, images, train):
            known = data.info.normalization.apply(data.test.all_images() / 255)
            distances = jnp.sum(
                (images[:, None] - jnp.asarray(known)[None]) ** 2, axis=(2, 3, 4)
            )
            labels = jnp.asarray(data.test.labels)[jnp.argmin(distances, axis=1)]
            return jnp.eye(10)[(labels + 1) % 10]

    fake = make_teacher(Permuted(), data.info.normalization)
    with pytest.raises(TeacherError, match=r"0\.0% of the real test images.*9->0"):
        check_on_real(fake, data, num_images=200)


def test_a_partly_permuted_order_is_a_warning(caplog):
    # Two of five classes exchanged: 60%, which may be what the user has.
    model = PixelClassifier((0, 1, 2, 4, 3))
    dataset = make_dataset(ipc=5)
    with caplog.at_level("WARNING", "gift_jax"):
        accuracy = check_on_distilled(make_teacher(model), dataset)
    assert accuracy == pytest.approx(60.0)
    assert "3->4, 4->3 renumbered it would be 100.0%" in caplog.text


def test_chance_is_not_taken_for_a_permutation():
    rng = np.random.default_rng(0)
    for num_classes, per_class in ((10, 10), (100, 10), (1000, 1)):
        labels = np.repeat(np.arange(num_classes), per_class)
        predictions = rng.integers(0, num_classes, len(labels))
        assert renumbering_hint(labels, predictions, num_classes) == ""


@pytest.mark.parametrize(("classes", "least"), [(2, 55.0), (10, 19.0), (1000, 10.09)])
def test_least_accuracy(classes, least):
    assert least_accuracy(classes) == pytest.approx(least)
