"""Statistics of layers, against NumPy in float64 and values of PyTorch."""

import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax import models, torch_io
from gift_jax.distill.recovery import statistics
from gift_jax.models import norms
from gift_jax.teachers import TeacherError, ensemble
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
        return statistics.with_layers(
            lambda: teacher.model.apply(teacher.variables, images, train=False)
        )

    return teacher, images, observed


def test_layers_of_a_conv_net_with_its_biases(case):
    teacher, images, observed = case
    logits, layers = observed(images)
    expected_logits, of_convs, of_norms = networks.conv_net(teacher.variables, images)
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-4, atol=1e-5)
    assert len(layers) == 2 * len(of_norms) == 4
    for layer, x in zip(layers[::2], of_convs, strict=True):
        np.testing.assert_allclose(layer.features, x, rtol=1e-4, atol=1e-5)
        assert layer.running is None and layer.offset == 0
    for i, (layer, x) in enumerate(zip(layers[1::2], of_norms, strict=True)):
        found = statistics.channel_moments(layer)
        np.testing.assert_allclose(found.mean, x.mean((0, 1, 2)), 1e-5, 1e-6)
        np.testing.assert_allclose(found.variance, x.var((0, 1, 2)), 1e-5)
        of_images = statistics.channel_moments(layer, of_images=True)
        np.testing.assert_allclose(of_images.mean, x.mean((1, 2)), 1e-4, 1e-5)
        np.testing.assert_allclose(of_images.variance, x.var((1, 2)), 1e-4, 1e-5)
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
        lambda images: statistics.with_layers(
            lambda: model.apply(variables, images, train=False)
        )[1]
    )(images)
    first, count = statistics.channel_moments(layers[1]), images[..., 0].size
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


class WithSetup(nn.Module):
    """Methods without arguments, and a positional `use_running_average`."""

    def setup(self):
        self.conv, self.norm = nn.Conv(4, (3, 3)), nn.BatchNorm()
        self.dense = nn.Dense(3)

    def __call__(self, images, train):
        x = self.norm(self.conv(images), not train)
        return self.dense(x.mean((1, 2)))


class OwnConv(nn.Conv):
    pass


class ScaledBatchNorm(nn.BatchNorm):
    """Calls its parent's method, which is no second layer."""

    @nn.compact
    def __call__(self, x, use_running_average=None):
        return 2 * super().__call__(2 * x, use_running_average)


class OwnNorm(norms.BatchNorm):
    pass


class OfSubclasses(nn.Module):
    @nn.compact
    def __call__(self, images, train):
        x = ScaledBatchNorm()(OwnConv(4, (3, 3))(images), not train)
        x = OwnNorm(use_running_average=not train)(x)
        return nn.Dense(3)(x.mean((1, 2)))


def test_subclasses_of_layers_are_layers():
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    model = OfSubclasses()
    variables = model.init(jax.random.key(0), images, train=False)
    _, layers = statistics.logits_and_layers(model, variables, images)
    assert [layer.running is None for layer in layers] == [True, False, False]
    np.testing.assert_array_equal(layers[0].features, images)
    kept = variables["batch_stats"]["ScaledBatchNorm_0"]
    np.testing.assert_array_equal(layers[1].running.mean, kept["mean"])


def test_networks_of_all_kinds_have_statistics():
    images = jnp.zeros((2, 8, 8, 3))

    def layers(model):
        variables = model.init(jax.random.key(0), images, train=False)
        return statistics.with_layers(
            lambda: model.apply(variables, images, train=False)
        )[1]

    resnet = models.create_model("resnet20", num_classes=3, image_size=8)
    for model, count in ((resnet, 2 * 19), (Outside(), 2), (WithSetup(), 2)):
        assert len(jax.eval_shape(lambda m=model: layers(m))) == count
        statistics.check_network(model, "sre2l", networks.INFO)
    assert [layer.offset for layer in layers(WithSetup())] == [0.0, 0.0]


def test_a_network_without_batch_norm_is_refused():
    model = networks.teacher(norm="instance").model
    with pytest.raises(TeacherError, match=r"sre2l .* ConvNet, has none: .*norm=batch"):
        statistics.check_network(model, "sre2l", networks.INFO)
    several = ensemble.Ensemble((networks.teacher().model, model))
    with pytest.raises(TeacherError, match="has none"):
        statistics.check_network(several, "sre2l", networks.INFO)
    statistics.check_network(several, "gvbsm", networks.INFO, convolutions=True)


def enlarged(x, height, width):
    """Bilinear, with centres of pixels at one half, as PyTorch's `interpolate`."""
    for axis, size in ((1, height), (2, width)):
        length = x.shape[axis]
        place = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, length - 1)
        share = (place - low).reshape((-1,) + (1,) * (3 - axis))
        x = (1 - share) * x.take(low, axis) + share * x.take(high, axis)
    return x


@pytest.mark.parametrize(
    ("height", "width", "side", "count"), [(8, 12, 4, 6), (6, 3, 4, 2), (1, 1, 4, 1)]
)
def test_moments_of_patches(height, width, side, count):
    x = np.random.default_rng(0).normal(1, 2, (3, height, width, 5))
    whole = enlarged(x, -(-height // side) * side, -(-width // side) * side)
    patches = [
        whole[:, i : i + side, j : j + side]
        for i in range(0, whole.shape[1], side)
        for j in range(0, whole.shape[2], side)
    ]
    found = statistics.patch_moments(jnp.asarray(x, jnp.float32), side)
    assert found.mean.shape == (count,)
    np.testing.assert_allclose(found.mean, [p.mean() for p in patches], 1e-5, 1e-6)
    np.testing.assert_allclose(found.variance, [p.var() for p in patches], 1e-5)
    of_images = statistics.patch_moments(
        jnp.asarray(x, jnp.float32), side, of_images=True
    )
    for function, of in (("mean", of_images.mean), ("var", of_images.variance)):
        expected = [getattr(p, function)((1, 2, 3)) for p in patches]
        np.testing.assert_allclose(of, np.stack(expected, 1), 1e-5, 1e-6)
