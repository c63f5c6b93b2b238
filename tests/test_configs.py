"""Every config is built, its shapes traced and its steps counted, without its data."""

import importlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax import optimizers, specs
from gift_jax.data import info
from gift_jax.runtime.devices import AXIS
from gift_jax.soft_labels import views
from gift_jax.train import batches
from gift_jax.train.step import create_train_state, train_step

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAMES = sorted(p.stem for p in (ROOT / "configs").glob("*.py") if p.stem != "common")
FAMILIES = [name for name in NAMES if not name.startswith("_")]

# images at IPC 10, batch size and epochs of the official evaluator, side, network.
EXPECTED = {
    "cifar10": (100, 50, 1000, 32, "conv3"),
    "cifar100": (1000, 100, 1000, 32, "conv3"),
    "digits": (100, 50, 200, 8, "conv3"),
    "fashion_mnist": (100, 50, 1000, 28, "conv3"),
    "imagenet1k": (10_000, 100, 300, 64, "conv4"),
    "imagenet1k_resnet18": (10_000, 100, 300, 224, "resnet18"),
    "imagenette": (100, 50, 1000, 128, "conv5"),
    "tiny_imagenet": (2000, 100, 1000, 64, "conv4"),
}


def load(name: str, options: str = ""):
    return importlib.import_module(f"configs.{name}").get_config(options)


def dataset_info(config) -> info.DatasetInfo:
    known = info.dataset_info(config.dataset.name)
    size = config.dataset.image_size or known.image_size
    return info.DatasetInfo(**{**vars(known), "image_size": size})


def test_every_config_is_listed():
    assert set(FAMILIES) == set(EXPECTED)


@pytest.mark.parametrize("name", FAMILIES)
def test_sizes_and_steps(name):
    config = load(name)
    images, batch_size, epochs, side, network = EXPECTED[name]
    dataset = dataset_info(config)
    assert dataset.num_classes * config.distilled.ipc == images
    assert batches.official_batch_size(images) == batch_size
    assert config.train.epochs == epochs
    assert dataset.image_size == side
    assert config.student.name == config.teacher.name == network
    spec = specs.expand(config)[0].setups[0][0]
    steps = -(-images // batch_size)
    factor_at = optimizers.schedule_factor(
        spec.optimizer, epochs=epochs, steps_per_epoch=steps
    )
    assert spec.optimizer.learning_rate == 1e-3
    # x0.2 at 2/3 and 5/6 of the epochs.
    for epoch, factor in (
        (2 * epochs // 3 - 1, 1.0),
        (2 * epochs // 3, 0.2),
        (5 * epochs // 6 - 1, 0.2),
        (5 * epochs // 6, 0.04),
    ):
        assert float(factor_at(steps * epoch)) == pytest.approx(factor), epoch


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if "resnet18" in name else name
        for name in FAMILIES
    ],
)
def test_training_step_traces(name):
    config = load(name)
    dataset = dataset_info(config)
    images, batch_size, epochs, side, _ = EXPECTED[name]
    job = specs.expand(config)[0]
    spec = job.setups[0][0]
    model = spec.network.build(dataset)
    shape = (side, side, dataset.channels)

    def step(key, pixels, labels, soft_labels, indices):
        state = create_train_state(
            model,
            spec.optimizer,
            shape,
            epochs=epochs,
            steps_per_epoch=-(-images // batch_size),
            init_key=key,
            dropout_key=key,
        )
        data = views.TrainData(pixels, labels, key)
        view = views.View(jnp.int32(0), soft_labels)
        mapped = jax.vmap(
            lambda batch: train_step(
                state,
                data,
                view,
                batch,
                loss=spec.loss.build(),
                view_images=views.AugmentedViews(job.augment, dataset.normalization),
            ),
            axis_name=AXIS,
        )
        return mapped(indices)

    state, metrics = jax.eval_shape(
        step,
        jax.random.key(0),
        jax.ShapeDtypeStruct((images, *shape), np.uint8),
        jax.ShapeDtypeStruct((images,), np.int32),
        jax.ShapeDtypeStruct((images, dataset.num_classes), np.float16),
        jax.ShapeDtypeStruct((2, batch_size // 2), np.int32),
    )
    assert metrics["loss"].shape == (2,)
    kernels = [leaf for leaf in jax.tree.leaves(state.params) if leaf.ndim == 3]
    assert kernels[-1].shape[-1] == dataset.num_classes  # the classifier, mapped


@pytest.mark.parametrize("name", FAMILIES)
def test_settings_are_accepted(name):
    config = load(name)
    if config.teacher.checkpoint != "torchvision":
        assert config.teacher.checkpoint == ""
    for job in specs.expand(config):
        job.check_paths()


def test_options_behind_the_colon():
    config = load("cifar10", "distill=random,ipc=1,lr=0.1,epochs=30")
    assert config.distilled.name == "random"
    assert config.distilled.ipc == 1
    assert config.optimizer.learning_rate == 0.1
    assert config.train.epochs == 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("ipc", r"'ipc'.*NAME=VALUE"),
        ("ipcs=3", "did you mean 'ipc'"),
        (
            "loss.kl.temperatur=3",
            r"unknown option .* 'loss\.kl\.temperatur'",
        ),
        ("ipc=1.5", "must be of type int"),
        ("ipc=True", "must be of type int"),
        ("lr=fast", "must be of type float"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        load("digits", options)
