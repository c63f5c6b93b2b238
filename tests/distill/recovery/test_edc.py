"""EDC: its constants, its terms against NumPy, and what it begins with."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax.data.info import dataset_info
from gift_jax.distill import Edc, Rded
from gift_jax.distill.recovery import edc, gvbsm, loop
from gift_jax.distill.unfinished import Unfinished
from gift_jax.runtime.preemption import PreemptedError
from gift_jax.teachers import ensemble
from tests.distill.recovery import networks
from tests.distill.recovery.test_gvbsm import (
    IMAGES,
    LABELS,
    distances,
    of_layers,
    random_statistics,
    softmax,
    targets_of,
)


def test_constants_of_the_official_scripts():
    """Iterations, learning rate, r_loss, batch, alpha, least area, RDED's factor."""
    assert [edc.Edc(1).constants(info) for info in networks.OFFICIAL] == [
        (2000, 0.05, 0.01, 100, 0.8, 0.5, 1),
        (2000, 0.05, 0.01, 100, 0.8, 0.5, 1),
        (1000, 0.05, 0.1, 80, 0.8, 0.5, 2),
    ]


def test_crops_of_ten_classes_are_those_of_cifar_10s_branch():
    chosen = [Edc(1).constants(dataset_info(n)) for n in ("cifar10", "cifar100")]
    assert [one.min_area for one in chosen] == [0.08, 0.5]


def test_it_begins_with_as_many_crops_as_there_are_images():
    assert Edc(10).first(networks.INFO) == Rded(10)
    many = Edc(400, batch_size=400)
    assert many.first(networks.INFO) == Rded(400, images_per_class=400)
    large = dataclasses.replace(networks.INFO, image_size=224)
    assert Edc(50).first(large) == Rded(50, factor=2)


@pytest.mark.usefixtures("one_device")
def test_it_begins_with_the_images_of_rded(monkeypatch):
    pair = ensemble.average("two", [networks.teacher(), networks.teacher(seed=1)])
    real = [random_statistics(member) for member in ensemble.members(pair)]
    begun = []

    def recover(method, *_, **__):
        begun.append(method.initial)
        return method.initial

    monkeypatch.setattr(loop, "recover", recover)
    data = networks.data()
    made = Edc(2).make(data, teacher=pair, seed=3, real=real)
    expected = Rded(2).make(data, teacher=pair, seed=3).images
    np.testing.assert_array_equal(begun, [expected])
    np.testing.assert_array_equal(made.images, expected)


def reference_flatness(logits, averaged):
    target = np.stack([softmax(row / 4) for row in np.float64(averaged)])
    found = np.stack([softmax(row / 4) for row in np.float64(logits)])
    return (target * (np.log(target) - np.log(found))).mean()


def test_flatness_and_its_gradient():
    logits, averaged = np.float32(np.random.default_rng(0).normal(0, 3, (2, 5, 7)))
    value, slopes = jax.value_and_grad(edc.flatness, argnums=(0, 1))(logits, averaged)
    np.testing.assert_allclose(value, reference_flatness(logits, averaged), rtol=1e-5)
    chosen, expected = networks.finite_differences(
        lambda x: reference_flatness(x, averaged), logits
    )
    np.testing.assert_allclose([slopes[0][i] for i in chosen], expected, 1e-3, 1e-6)
    assert not slopes[1].any()


def test_views_are_crops_and_their_mirror_images():
    image = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 8)
    whole = [np.asarray(edc.view(key, image, 1.0)) for key in keys]
    mirrored = [np.allclose(seen, image[:, :, ::-1], atol=1e-5) for seen in whole]
    same = [np.allclose(seen, image, atol=1e-5) for seen in whole]
    assert any(mirrored) and any(same) and np.logical_or(mirrored, same).all()
    assert not np.isin(np.asarray(edc.view(keys[0], image, 0.5)), image).all()


def test_an_iteration():
    teacher = networks.teacher()
    real = random_statistics(teacher)
    averaged = IMAGES + np.float32(0.5)
    averages = gvbsm.first_averages([teacher], jnp.asarray(IMAGES), 4)
    task = loop.Task(jax.random.key(3), jnp.int32(1), jnp.asarray(LABELS))
    constants = edc.Edc(1).constants(dataset_info("cifar100"))
    objective = jax.jit(edc.objective(teacher, constants, 0, 1.0, 4))
    terms, memory = objective(
        (teacher.variables, real), IMAGES, edc.Memory(averaged, averages), task
    )
    seen, calm = (
        np.asarray(edc.view(task.key, images, 0.5)) for images in (IMAGES, averaged)
    )
    logits, *_ = networks.conv_net(teacher.variables, seen)
    calm_logits, *_ = networks.conv_net(teacher.variables, calm)
    found = of_layers(teacher.variables, seen)
    of_class = [
        [
            tuple(np.asarray(m)[LABELS].mean(0) for m in pair)
            for pair in layer.of_classes
        ]
        for layer in real
    ]
    halves = [
        distances(found, averages[0], targets, 0.8, [5.0, 0.5, 0.5, 0.5])[0](found)
        for targets in (targets_of(teacher, real), of_class)
    ]
    expected = {
        "ce": networks.cross_entropy(logits, LABELS),
        "statistics": 0.01 * sum(halves),
        "flatness": reference_flatness(logits, calm_logits),
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(memory.images, 0.99 * averaged + 0.01 * IMAGES, 1e-6)


@pytest.mark.usefixtures("one_device")
@pytest.mark.slow
def test_a_stopped_recovery_goes_on_exactly(tmp_path):
    pair = ensemble.average("two", [networks.teacher(), networks.teacher(seed=1)])
    real = [random_statistics(member) for member in ensemble.members(pair)]
    data, distiller = networks.data(), Edc(2, iterations=5)
    options = {"teacher": pair, "seed": 3, "real": real}
    whole = distiller.make(data, **options)
    done = []

    def stop(iteration, total, **terms):
        done.append(iteration)
        if iteration == 3:
            raise PreemptedError

    with pytest.raises(PreemptedError):
        distiller.make(data, on_progress=stop, directory=tmp_path, **options)
    kept = Unfinished(tmp_path).kept("initial")
    np.testing.assert_array_equal(kept, Rded(2).make(data, teacher=pair, seed=3).images)
    later = []
    found = distiller.make(
        data,
        on_progress=lambda i, *_, **__: later.append(i),
        directory=tmp_path,
        **options,
    )
    np.testing.assert_array_equal(found.images, whole.images)
    assert (done, later) == ([0, 1, 2, 3], [3, 4, 5])
    assert found.metadata.method == "edc" and found.images.shape == (6, 8, 8, 3)
    assert np.abs(found.images - kept).mean() > 0.01
