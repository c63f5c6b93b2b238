"""Statistics of layers, against NumPy in float64 and values of PyTorch."""

import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax import models, torch_io
from gift_jax.distill.recovery import statistics
from gift_jax.teachers import TeacherError
from tests.distill.recovery import networks


def test_moments():
    x = np.random.default_rng(0).normal(3, 2, (5, 4, 4, 6))
    found = statistics.moments(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found.mean, x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found.variance, x.var((0, 1, 2)), rtol=1e-5)


@pytest.fixture(scope="module")
def case():
    teacher = networks.teacher()
    images = np.random.default_rng(1).normal(size=(5, 8, 8, 3)).astype(np.float32)

    @jax.jit
    def observed(images):
        return statistics.with_batch_norms(
            lambda: teacher.model.apply(teacher.variables, images, train=False)
        )

    return teacher, images, observed


def test_layers_of_a_conv_net_with_its_biases(case):
    teacher, images, observed = case
    logits, layers = observed(images)
    expected_logits, _, of_norms = networks.conv_net(teacher.variables, images)
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-4, atol=1e-5)
    assert len(layers) == len(of_norms) == 2
    for i, (layer, x) in enumerate(zip(layers, of_norms, strict=True)):
        np.testing.assert_allclose(layer.batch.mean, x.mean((0, 1, 2)), 1e-5, 1e-6)
        np.testing.assert_allclose(layer.batch.variance, x.var((0, 1, 2)), 1e-5)
        kept = teacher.variables["batch_stats"][f"norm{i}"]
        np.testing.assert_array_equal(layer.running.mean, kept["mean"])
        np.testing.assert_array_equal(layer.running.variance, kept["var"])


def test_distance_and_its_gradient(case):
    teacher, images, observed = case

    def loss(images):
        return statistics.batch_norm_loss(observed(images)[1])

    def reference(images):
        _, _, of_norms = networks.conv_net(teacher.variables, images)
        return networks.bn_distance(teacher.variables, of_norms)

    found, gradient = jax.jit(jax.value_and_grad(loss))(images)
    np.testing.assert_allclose(found, reference(images), rtol=1e-5)
    chosen, expected = networks.finite_differences(reference, images)
    np.testing.assert_allclose([gradient[i] for i in chosen], expected, 1e-3, 1e-6)


def test_the_gradient_of_no_distance_is_zero():
    def loss(mean):
        one = statistics.Moments(mean, jnp.ones(2))
        return statistics.distance(one, statistics.Moments(jnp.ones(2), jnp.ones(2)))

    np.testing.assert_array_equal(jax.grad(loss)(jnp.ones(2)), [0, 0])


def test_pytorchs_statistics_of_imported_weights():
    """`after_` of the fixture: 0.9 of what was and 0.1 of the batch's, unbiased."""
    path = pathlib.Path(__file__).parents[2] / "fixtures" / "convnet_batch.npz"
    with np.load(path) as file:
        golden = {name: file[name] for name in file.files}
    names = [name for name in golden if name.endswith("running_mean")]
    prefix = min(n for n in names if not n.startswith("after_"))
    prefix = prefix.removesuffix("running_mean")
    state = {
        name: value
        for name, value in golden.items()
        if not name.startswith("after_")
        and name not in ("images", "eval_logits", "train_logits")
    }
    options = {"num_classes": 10, "image_size": 32, "width": 32}
    variables = torch_io.import_torch(state, model="conv3", **options)
    images = golden["images"].transpose(0, 2, 3, 1)
    model = models.create_model("conv3", **options)
    layers = jax.jit(
        lambda images: statistics.with_batch_norms(
            lambda: model.apply(variables, images, train=False)
        )[1]
    )(images)
    first, count = layers[0].batch, images[..., 0].size
    for name, of_batch in (
        ("running_mean", first.mean),
        ("running_var", first.variance * count / (count - 1)),
    ):
        before, after = golden[prefix + name], golden[f"after_{prefix}{name}"]
        np.testing.assert_allclose(0.9 * before + 0.1 * of_batch, after, 1e-5, 1e-6)


class Outside(nn.Module):
    @nn.compact
    def __call__(self, images, train):
        x = nn.Conv(4, (3, 3))(images)
        x = nn.BatchNorm(use_running_average=not train)(x)
        return nn.Dense(3)(x.mean((1, 2)))


def test_networks_of_all_kinds_have_statistics():
    images = jnp.zeros((2, 8, 8, 3))

    def layers(model):
        variables = model.init(jax.random.key(0), images, train=False)
        return statistics.with_batch_norms(
            lambda: model.apply(variables, images, train=False)
        )[1]

    resnet = models.create_model("resnet20", num_classes=3, image_size=8)
    for model, count in ((resnet, 19), (Outside(), 1)):
        assert len(jax.eval_shape(lambda m=model: layers(m))) == count
        statistics.check_network(model, "sre2l", networks.INFO)


def test_a_network_without_batch_norm_is_refused():
    model = networks.teacher(norm="instance").model
    with pytest.raises(TeacherError, match=r"sre2l .* ConvNet, has none: .*norm=batch"):
        statistics.check_network(model, "sre2l", networks.INFO)
