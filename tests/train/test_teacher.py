"""Training a teacher: what comes of it, where it is streamed, and where it stops."""

import threading

import jax
import numpy as np
import pytest

from gift_jax import augment, models, optimizers
from gift_jax.data import real
from gift_jax.runtime import preemption
from gift_jax.runtime.devices import AXIS
from gift_jax.runtime.errors import UserError
from gift_jax.train import teacher
from gift_jax.train.streaming import StreamedData


@pytest.fixture(scope="module")
def digits() -> real.RealDataset:
    return real.load_dataset("digits")


@pytest.fixture(scope="module")
def network():
    return models.create_model(
        "conv1", num_classes=10, image_size=8, width=16, axis_name=AXIS
    )


def make_spec(rate=0.1, epochs=3, batch_size=64, label_noise=0.0, **augmentation):
    return teacher.TrainingSpec(
        optimizer=optimizers.OptimizerSpec("sgd", rate, schedule="cosine"),
        epochs=epochs,
        batch_size=batch_size,
        augmentation=augment.AugmentSpec(**augmentation),
        seed=0,
        label_noise=label_noise,
    )


def train(digits, network, directory, *, devices=1, **spec):
    return teacher.train_teacher(
        network,
        digits.train,
        make_spec(**spec),
        digits.info.normalization,
        checkpoints_directory=directory,
        devices=jax.devices()[:devices],
        workers=0,
    )


def accuracy(digits, network, variables):
    images = digits.info.normalization.apply(digits.test.all_images() / 255)
    logits = network.apply(variables, images, train=False)
    return np.mean(np.argmax(logits, axis=1) == digits.test.labels)


@pytest.fixture(scope="module")
def shown():
    """What the bar of `variables` was told: images, and names of metrics."""
    return []


@pytest.fixture(scope="module")
def variables(digits, network, tmp_path_factory, shown):
    def update(bar, images, **metrics):
        shown.append((images, sorted(metrics)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teacher.ProgressBar, "update", update)
        return train(digits, network, tmp_path_factory.mktemp("teacher"))


def test_a_trained_teacher_classifies_test_images(digits, network, variables):
    # Chance is 10%; three epochs of a one-layer ConvNet give about 90%.
    assert accuracy(digits, network, variables) > 0.8


def test_a_large_split_is_streamed_and_gives_the_same(
    digits, network, variables, tmp_path, monkeypatch
):
    monkeypatch.setattr(teacher, "RESIDENT_BYTES", 1000)
    data = teacher._data(digits.train, make_spec(), workers=None)
    assert isinstance(data, StreamedData)
    assert data.split is digits.train and data.workers == 0
    streamed = train(digits, network, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, streamed, variables)


@pytest.mark.parametrize("resident_bytes", [2**30, 1000])
def test_a_teacher_that_was_stopped_ends_the_same(
    digits, network, variables, tmp_path, monkeypatch, resident_bytes
):
    monkeypatch.setattr(teacher, "RESIDENT_BYTES", resident_bytes)
    event, dispatched = threading.Event(), []
    monkeypatch.setattr(preemption, "_requested", event)
    update = teacher.ProgressBar.update

    def counted(bar, images, **metrics):
        dispatched.append(images)
        if sum(dispatched) >= 64 * 40:
            event.set()
        update(bar, images, **metrics)

    monkeypatch.setattr(teacher.ProgressBar, "update", counted)
    with pytest.raises(preemption.PreemptedError):
        train(digits, network, tmp_path)
    # In the second epoch of 23 steps.
    assert len(digits.train) == 1437
    checkpoints = [int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()]
    assert max(checkpoints) == 41
    monkeypatch.setattr(preemption, "_requested", threading.Event())
    resumed = train(digits, network, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, resumed, variables)


def test_the_bar_moves_within_the_epoch(variables, shown):
    steps = [(64, [])] * 22 + [(1437 - 22 * 64, [])]
    assert shown == [*steps, (0, ["gradient_norm", "loss", "top1"])] * 3


def test_a_batch_is_spread_over_the_devices_that_it_divides_over(
    digits, network, tmp_path, monkeypatch
):
    used = []

    def fit(*args, devices, **options):
        used.append(len(devices))
        raise KeyboardInterrupt

    monkeypatch.setattr(teacher, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        train(digits, network, tmp_path, devices=4, batch_size=50)
    assert used == [2]


@pytest.mark.slow
def test_a_teacher_learns_from_mixed_images(digits, network, tmp_path):
    variables = train(digits, network, tmp_path, mix="cutmix", epochs=6)
    assert accuracy(digits, network, variables) > 0.85


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.9])
def test_label_noise_is_symmetric_and_of_as_many_images_as_it_says(fraction):
    labels = np.arange(20_000, dtype=np.int32) % 10
    noisy = teacher.noisy_labels(labels, fraction, jax.random.key(0))
    wrong = noisy != labels
    assert wrong.sum() == fraction * len(labels)
    assert noisy.dtype == labels.dtype
    assert set(noisy) == set(range(10))
    if fraction:  # a ninth of each class to each of the others
        moved = np.bincount((noisy - labels)[wrong] % 10, minlength=10)
        np.testing.assert_allclose(moved[1:], fraction * 20_000 / 9, rtol=0.15)


def test_a_teacher_of_wrong_labels_is_worse_and_another(digits, network, tmp_path):
    misled = train(digits, network, tmp_path, label_noise=0.8)
    assert 0.1 < accuracy(digits, network, misled) < 0.8
    recipes = [make_spec(label_noise=noise).recipe for noise in (0.0, 0.8)]
    assert "label_noise" not in recipes[0] and recipes[1]["label_noise"] == 0.8


def test_a_diverging_teacher_says_what_to_change(digits, network, tmp_path):
    with pytest.raises(
        teacher.DivergedError, match=r"1e\+30 \(teacher\.optimizer\.learning_rate"
    ) as caught:
        train(digits, network, tmp_path, rate=1e30)
    assert isinstance(caught.value, UserError)
