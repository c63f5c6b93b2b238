"""Expert trajectories, against gradient descent written out, and what a kill leaves."""

import jax
import numpy as np
import optax
import pytest

from gift_jax import models
from gift_jax.augment import AugmentSpec
from gift_jax.data import info
from gift_jax.distill.matching import experts as experts_lib
from gift_jax.distill.matching.experts import Experts, Trajectory
from gift_jax.runtime.errors import InputError
from tests.distill.recovery import networks

pytestmark = pytest.mark.usefixtures("one_device")
MODEL = models.create_model(
    "conv1", num_classes=3, image_size=8, width=4, norm="instance"
)
EPOCHS, RATE = 3, 0.2


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    monkeypatch.setattr(Experts, "network", lambda self, info: MODEL)


@pytest.fixture(scope="module")
def data():
    return networks.data(70)  # more than an image has pixels


def of(zca=False):
    return Experts(
        2, EPOCHS, RATE, width=4, zca=zca, seed=0, augmentation=AugmentSpec()
    )


@pytest.mark.parametrize("zca", [False, True])
def test_every_epoch_is_kept(data, tmp_path, zca):
    """Of 210 images, which are one batch: an epoch is one step of plain SGD."""
    experts = of(zca)
    trajectories = experts.train(data, tmp_path)
    transform = experts.preprocess(data)
    images = transform.apply(data.train.all_images().astype(np.float32) / 255)
    unflatten = experts_lib.unflatten(MODEL, data.info)

    @jax.jit
    @jax.grad
    def gradient(weights):
        logits = MODEL.apply(unflatten(weights), images, train=False)
        return optax.losses.softmax_cross_entropy_with_integer_labels(
            logits, data.train.labels
        ).mean()

    for trajectory in trajectories:
        assert len(trajectory) == EPOCHS + 1
        for epoch in range(EPOCHS):
            now, then = trajectory[epoch], trajectory[epoch + 1]
            np.testing.assert_allclose(
                then - now, -RATE * np.asarray(gradient(now)), 1e-3, 1e-6
            )
    assert (trajectories[0][0] != trajectories[1][0]).any()
    np.testing.assert_array_equal(trajectories[0][-1], trajectories[0][EPOCHS])


def test_what_was_killed_goes_on_from_the_last_whole_epoch(data, tmp_path, monkeypatch):
    whole = of().train(data, tmp_path / "whole")
    killed = of().train(data, tmp_path / "killed")
    with killed[1].path.open("r+b") as file:  # in the middle of writing a row
        file.truncate(int(2.5 * 4 * killed[1].size))
    epochs, fit = [], experts_lib.fit
    monkeypatch.setattr(
        experts_lib,
        "fit",
        lambda *args, on_epoch, **options: fit(
            *args, on_epoch=lambda r, m: epochs.append(r.finished_epochs), **options
        ),
    )
    found = of().train(data, tmp_path / "killed")
    assert epochs == [2, 3]  # of the second expert alone
    for one, other in zip(found, whole, strict=True):
        assert one.path.read_bytes() == other.path.read_bytes()
    assert experts_lib.fingerprint_of(found) == experts_lib.fingerprint_of(whole)


def test_weights_are_read_as_they_were_written(data, tmp_path):
    variables = models.init_variables(MODEL, jax.random.key(3), image_size=8)
    size = of().size(data.info)
    trajectory = Trajectory(tmp_path / "one", size)
    assert len(trajectory) == 0
    trajectory.append(variables["params"])
    assert len(trajectory) == 1 and trajectory[0].shape == (size,)
    found = experts_lib.unflatten(MODEL, data.info)(trajectory[0])
    jax.tree.map(np.testing.assert_array_equal, found["params"], variables["params"])


def test_the_recipe_is_the_official_one(monkeypatch):
    monkeypatch.undo()
    made = Experts(100, 100, 0.01, width=128, zca=True, seed=0)
    sgd, views = made.training.optimizer, made.training.augmentation
    assert (sgd.name, sgd.learning_rate, sgd.momentum) == ("sgd", 0.01, 0.0)
    assert (sgd.weight_decay, sgd.schedule) == (0.0, "constant")
    assert (made.training.batch_size, views.diffaug_mode) == (256, "single")
    for name, depth in (("cifar10", 3), ("tiny_imagenet", 4)):
        network = made.network(info.dataset_info(name))
        assert (network.depth, network.width, network.norm) == (depth, 128, "instance")


def test_too_few_images_to_whiten_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"ZCA cannot be fitted.*\(12, 8, 8, 3\)"):
        of(zca=True).train(networks.data(), tmp_path)
