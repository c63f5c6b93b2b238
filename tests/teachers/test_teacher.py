"""The teacher: its training, its storage, its inputs."""

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from gift_jax import augment, models, optimizers
from gift_jax.data import preprocess, real
from gift_jax.runtime import preemption
from gift_jax.runtime.devices import AXIS
from gift_jax.teachers import teacher
from gift_jax.train import checkpoint

NORMALIZATION = preprocess.Normalization((0.5,), (0.5,))


class PixelClassifier(nn.Module):
    """Class c where pixel c is the brightest."""

    @nn.compact
    def __call__(self, images, step):
        return images.reshape(len(images), -1)[:, :5]


def make_teacher(model: nn.Module, transform=NORMALIZATION) -> teacher.Teacher:
    return teacher.Teacher("fake", model, {}, transform, top1=0.0, fingerprint="")


def test_inputs_are_converted_where_the_teachers_preprocessing_differs():
    class Inputs(nn.Module):
        @nn.compact
        def __call__(self, images, step):
            return images.reshape(len(images), -1)

    own = preprocess.Normalization((0.2,), (0.4,))
    pixels = np.random.default_rng(0).uniform(size=(2, 4, 4, 1)).astype(np.float32)
    fed = make_teacher(Inputs(), own).logits({}, (pixels - 0.5) / 0.5, NORMALIZATION)
    np.testing.assert_allclose(fed, ((pixels - 0.2) / 0.4).reshape(2, -1), atol=1e-6)


def test_score_is_the_cross_entropy():
    rng = np.random.default_rng(0)
    pixels = rng.uniform(size=(6, 4, 4, 1)).astype(np.float32)
    labels = rng.integers(0, 5, 6)
    score = teacher.make_score(make_teacher(PixelClassifier()))
    logits = ((pixels - 0.5) / 0.5).reshape(6, -1)[:, :5]
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    np.testing.assert_allclose(score(pixels, labels), expected, 1e-5)


@pytest.fixture(scope="module")
def digits() -> real.RealDataset:
    return real.load_dataset("digits")


@pytest.fixture(scope="module")
def network():
    return models.create_model(
        "conv1", num_classes=10, image_size=8, width=16, axis_name=AXIS
    )


@pytest.fixture(scope="module")
def variables(digits, network, tmp_path_factory):
    spec = teacher.TrainingSpec(
        optimizer=optimizers.OptimizerSpec("sgd", 0.1, schedule="cosine"),
        epochs=3,
        batch_size=64,
        augmentation=augment.AugmentSpec(),
        seed=0,
    )
    return train_teacher(digits, network, spec, tmp_path_factory.mktemp("teacher"))


def train_teacher(digits, network, spec, directory):
    return teacher.train_teacher(
        network,
        digits,
        spec,
        digits.info.normalization,
        checkpoints_directory=directory,
        devices=jax.devices()[:1],
    )


def test_a_trained_teacher_classifies_test_images(digits, network, variables):
    images = digits.info.normalization.apply(digits.test.all_images() / 255)
    logits = network.apply(variables, images, train=False)
    # Chance is 10%; three epochs of a one-layer ConvNet give about 90%.
    assert np.mean(np.argmax(logits, axis=1) == digits.test.labels) > 0.8


def test_storage_round_trip(tmp_path, network, variables):
    teacher.save_teacher(tmp_path, variables)
    loaded = teacher.load_teacher(tmp_path, network, (8, 8, 1))
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def test_the_weights_of_another_model_are_refused(tmp_path, variables):
    teacher.save_teacher(tmp_path, variables)
    other = models.create_model("conv1", num_classes=10, image_size=8, width=8)
    with pytest.raises(checkpoint.CheckpointMismatchError):
        teacher.load_teacher(tmp_path, other, (8, 8, 1))


def test_a_train_split_larger_than_memory_is_refused(
    digits, network, monkeypatch, tmp_path
):
    monkeypatch.setattr(teacher, "_LARGEST_TRAIN_SPLIT_BYTES", 1000)
    spec = teacher.TrainingSpec(
        optimizers.OptimizerSpec("sgd"), 1, 64, augment.AugmentSpec(), 0
    )
    with pytest.raises(teacher.TeacherError, match=r"teacher\.checkpoint"):
        train_teacher(digits, network, spec, tmp_path)


def test_a_diverging_teacher_says_what_to_change(digits, network, tmp_path):
    spec = teacher.TrainingSpec(
        optimizer=optimizers.OptimizerSpec("sgd", 1e30),
        epochs=1,
        batch_size=64,
        augmentation=augment.AugmentSpec(),
        seed=0,
    )
    with pytest.raises(
        teacher.TeacherError, match=r"teacher\.optimizer\.learning_rate"
    ):
        train_teacher(digits, network, spec, tmp_path)


def test_a_teacher_that_was_stopped_ends_the_same(
    digits, network, variables, tmp_path, monkeypatch
):
    answers = iter([False, True, False])
    monkeypatch.setattr(preemption, "agreed", lambda: next(answers))
    spec = teacher.TrainingSpec(
        optimizer=optimizers.OptimizerSpec("sgd", 0.1, schedule="cosine"),
        epochs=3,
        batch_size=64,
        augmentation=augment.AugmentSpec(),
        seed=0,
    )
    with pytest.raises(preemption.PreemptedError):
        train_teacher(digits, network, spec, tmp_path)
    resumed = train_teacher(digits, network, spec, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, resumed, variables)
