"""SRe2L: its constants, its loss against NumPy, and images that it recovers."""

import jax
import numpy as np
import pytest

from gift_jax.distill import Sre2l
from gift_jax.distill.recovery import sre2l
from tests.distill.recovery import networks


def test_constants_of_the_official_scripts():
    """Field by field: iterations, learning rate, r_bn, jitter, multi-crop."""
    assert [sre2l.Sre2l(1).constants(info) for info in networks.OFFICIAL] == [
        (1000, 0.25, 0.01, (0, 4), False),
        (4000, 0.1, 1.0, (-4, 4), True),
        (4000, 0.25, 0.01, (0, 32), True),
    ]


def test_options_stand_in_their_place():
    teacher = networks.teacher()
    made = Sre2l(1, iterations=7).method(teacher, networks.NORMALIZATION, networks.INFO)
    assert (made.iterations, made.learning_rate, made.batch_size) == (7, 0.25, 100)
    assert made.variables == [teacher.variables] and not made.by_class


@pytest.mark.parametrize("weight", [0.01, 1.0])
def test_the_loss_and_its_gradient(weight):
    teacher = networks.teacher()
    images = np.random.default_rng(1).normal(size=(6, 8, 8, 3)).astype(np.float32)
    labels = np.arange(6) % 3

    def loss(images):
        terms = sre2l.look(teacher, teacher.variables, images, labels, weight)
        return sum(terms.values()), terms

    def parts(images):
        logits, _, of_norms = networks.conv_net(teacher.variables, images)
        distance = networks.bn_distance(teacher.variables, of_norms)
        return networks.cross_entropy(logits, labels), weight * distance

    gradient, terms = jax.jit(jax.grad(loss, has_aux=True))(images)
    np.testing.assert_allclose([terms["ce"], terms["bn"]], parts(images), rtol=1e-5)
    chosen, expected = networks.finite_differences(lambda x: sum(parts(x)), images)
    np.testing.assert_allclose([gradient[i] for i in chosen], expected, 1e-3, 1e-6)


def test_views_are_crops_only_where_there_are_many():
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    cifar, tiny, _ = map(sre2l.Sre2l(1).constants, networks.OFFICIAL)
    see = jax.jit(sre2l.view, static_argnums=2)
    for key in jax.random.split(jax.random.key(0), 4):
        rolled = np.asarray(see(key, images, cifar, 0.08))
        np.testing.assert_array_equal(np.sort(rolled.ravel()), np.sort(images.ravel()))
    cropped = see(key, images, tiny, 0.08)
    assert not np.isin(np.asarray(cropped), images).all()


@pytest.mark.slow
def test_images_come_nearer_to_classes_and_statistics(monkeypatch):
    still = sre2l.Constants(40, 0.25, 0.01, (0, 0), False)
    monkeypatch.setattr(Sre2l, "by_side", ((32, still),))
    history = []

    def on_progress(done, total, **terms):
        assert total == 40
        history.append(terms)

    made = Sre2l(3).make(
        networks.data(), teacher=networks.teacher(), seed=0, on_progress=on_progress
    )
    assert made.images.shape == (9, 8, 8, 3)
    assert made.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for name in ("ce", "bn"):
        assert history[-1][name] < 0.75 * history[1][name]
    assert made.metadata.method == "sre2l"
    assert "ipc 3, iterations 0, learning_rate 0.0" in made.metadata.source
