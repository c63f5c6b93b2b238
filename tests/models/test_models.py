"""The networks against golden values of the official code and published facts."""

import math
from functools import partial
from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from gift_jax.models import MODELS, create_model, init_variables, layers, norms
from gift_jax.models.convnet import ConvNet
from gift_jax.models.mobilenet import InvertedResidual
from gift_jax.torch_io.torch_import import import_torch

FIXTURES = Path(__file__).parents[1] / "fixtures"

# (classes, image size, parameters). Sources of the counts: torchvision's `num_params`
# (resnet, mobilenet_v2, efficientnet_b0, vgg11); for the modified ResNets less the
# 7x7 stem, plus the 3x3 one: 64 * 3 * (49 - 9) = 7680 fewer; akamaster's README (0.27M,
# 0.46M, 0.66M, 0.85M); for ConvNets the sum over their layers, and 320,010 is also what
# Dataset Condensation reports for the ConvNet-3 on CIFAR-10.
PARAMETERS = {
    "conv1": (10, 32, 331_530),
    "conv2": (10, 32, 233_610),
    "conv3": (10, 32, 320_010),
    "conv4": (200, 64, 857_160),
    "conv5": (10, 128, 615_690),
    "conv6": (100, 128, 794_340),
    "conv7": (100, 128, 903_780),
    "conv8": (100, 256, 1_051_620),
    "resnet18": (1000, 224, 11_689_512),
    "resnet34": (1000, 224, 21_797_672),
    "resnet50": (1000, 224, 25_557_032),
    "resnet101": (1000, 224, 44_549_160),
    "resnet18_modified": (1000, 64, 11_681_832),
    "resnet34_modified": (1000, 64, 21_789_992),
    "resnet50_modified": (1000, 64, 25_549_352),
    "resnet101_modified": (1000, 64, 44_541_480),
    "resnet20": (10, 32, 269_722),
    "resnet32": (10, 32, 464_154),
    "resnet44": (10, 32, 658_586),
    "resnet56": (10, 32, 853_018),
    "mobilenet_v2": (1000, 224, 3_504_872),
    "efficientnet_b0": (1000, 224, 5_288_548),
    "vgg11": (1000, 224, 132_863_336),
}


def golden_convnet(norm):
    """(golden values, model, variables) of a ConvNet-3 of the official code."""
    golden = np.load(FIXTURES / f"convnet_{norm}.npz")
    state = {k: golden[k] for k in golden if k.startswith(("layers.", "classifier."))}
    options = {"num_classes": 10, "image_size": 32, "width": 32, "norm": norm}
    model = create_model("conv3", **options)
    return golden, model, import_torch(state, model="conv3", **options)


def nhwc(images):
    return images.transpose(0, 2, 3, 1)


# Values.


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_convnet_evaluates_as_the_official_code(norm):
    golden, model, variables = golden_convnet(norm)
    logits = jax.jit(model.apply)(variables, nhwc(golden["images"]))
    np.testing.assert_allclose(logits, golden["eval_logits"], atol=1e-4)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_convnet_trains_as_the_official_code(norm):
    golden, model, variables = golden_convnet(norm)
    train = jax.jit(partial(model.apply, train=True, mutable=["batch_stats"]))
    logits, _ = train(variables, nhwc(golden["images"]))
    np.testing.assert_allclose(logits, golden["train_logits"], atol=1e-4)


def test_running_statistics_are_pytorchs_up_to_the_unbiased_factor():
    golden, model, variables = golden_convnet("batch")
    images = nhwc(golden["images"])
    train = jax.jit(partial(model.apply, train=True, mutable=["batch_stats"]))
    _, updates = train(variables, images)
    for i in range(3):
        # The block works on images halved i times.
        n = images.shape[0] * (32 >> i) ** 2
        after = updates["batch_stats"][f"norm{i}"]
        name = f"layers.norm.{i}.running"
        np.testing.assert_allclose(
            after["mean"], golden[f"after_{name}_mean"], rtol=1e-5, atol=1e-6
        )
        old = 0.9 * golden[f"{name}_var"]
        np.testing.assert_allclose(
            (after["var"] - old) * n / (n - 1),
            golden[f"after_{name}_var"] - old,
            rtol=1e-4,
            atol=1e-6,
        )


@pytest.mark.parametrize(
    ("length", "size"), [(1, 7), (2, 7), (7, 7), (9, 7), (14, 7), (5, 3)]
)
def test_adaptive_average_pool_averages_the_windows_of_pytorch(length, size):
    images = np.random.default_rng(0).normal(size=(2, length, length, 3))
    edges = [
        (math.floor(i * length / size), math.ceil((i + 1) * length / size))
        for i in range(size)
    ]
    expected = np.empty((2, size, size, 3))
    for i, (top, bottom) in enumerate(edges):
        for j, (left, right) in enumerate(edges):
            expected[:, i, j] = images[:, top:bottom, left:right].mean((1, 2))
    pool = jax.jit(layers.adaptive_average_pool, static_argnums=1)
    np.testing.assert_allclose(pool(images, size), expected, atol=1e-6)


# Sizes.


def test_every_model_has_a_pinned_parameter_count():
    assert list(PARAMETERS) == list(MODELS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count(name):
    num_classes, size, parameters = PARAMETERS[name]
    model = create_model(
        name, num_classes=num_classes, image_size=size, dtype="bfloat16"
    )
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    assert sum(p.size for p in jax.tree.leaves(variables["params"])) == parameters
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


# Options.


def traced_layers(name, train, **options):
    """(Flax layer, method, dtype of its result), in the order of the calls."""
    size = 256 if name == "conv8" else 128
    model = create_model(name, num_classes=10, image_size=size, **options)
    calls = []

    def record(call, args, kwargs, context):
        result = call(*args, **kwargs)
        dtype = jax.tree.leaves(result)[0].dtype
        calls.append((context.module, context.method_name, dtype))
        return result

    def init(key):
        images = jnp.zeros((2, size, size, 3))
        return model.init({"params": key, "dropout": key}, images, train=train)

    with flax.linen.intercept_methods(record):
        jax.eval_shape(init, jax.random.key(0))
    return calls


# One network for each piece of code.
FAMILIES = [
    "conv3",
    "resnet18",
    "resnet50_modified",
    "resnet20",
    "mobilenet_v2",
    "efficientnet_b0",
    "vgg11",
]


@pytest.mark.parametrize("name", FAMILIES)
def test_options_reach_every_layer(name):
    calls = traced_layers(name, train=True, dtype="bfloat16", axis_name="batch")
    layers = [layer for layer, *_ in calls]
    batch_norms = [layer for layer in layers if isinstance(layer, norms.BatchNorm)]
    assert bool(batch_norms) == (name != "vgg11")
    for norm in batch_norms:
        assert norm.axis_name == "batch"
        assert not norm.use_running_average
    # The classifier and the network as a whole return float32, all others bfloat16.
    dtypes = [dtype for _, method, dtype in calls if method == "__call__"]
    assert set(dtypes[:-2]) == {jnp.dtype("bfloat16")}
    assert dtypes[-2:] == [jnp.float32, jnp.float32]


def test_bfloat16_is_near_float32():
    golden, model, variables = golden_convnet("batch")
    rough = model.clone(dtype=jnp.bfloat16)
    logits = jax.jit(rough.apply)(variables, nhwc(golden["images"]))
    difference = np.abs(logits - golden["eval_logits"]).max()
    assert 1e-4 < difference / golden["eval_logits"].std() < 0.05


def test_axis_name_gives_the_training_step_of_the_whole_batch():
    devices = jax.devices()[:4]
    if len(devices) < 4:
        pytest.skip("needs 4 devices")
    network = partial(ConvNet, depth=2, width=8, num_classes=5, image_size=8)
    variables = init_variables(network(), jax.random.key(0), image_size=8)
    generator = np.random.default_rng(0)
    # The devices get images of different mean, so that their own statistics differ.
    means = np.arange(4.0).reshape(4, 1, 1, 1, 1)
    images = generator.normal(means, size=(4, 2, 8, 8, 3)).astype(np.float32)
    targets = generator.normal(size=(4, 2, 5)).astype(np.float32)

    def step(model, images, targets):
        """Logits, batch statistics and gradients of one batch."""

        def loss(params):
            logits, updates = model.apply(
                variables | {"params": params},
                images,
                train=True,
                mutable=["batch_stats"],
            )
            return jnp.mean((logits - targets) ** 2), (logits, updates)

        gradients, (logits, updates) = jax.grad(loss, has_aux=True)(variables["params"])
        return logits, updates["batch_stats"], gradients

    def mapped_step(model, images, targets):
        logits, batch_stats, gradients = step(model, images, targets)
        return logits, batch_stats, jax.lax.pmean(gradients, "batch")

    def run_mapped(model):
        mapped = jax.pmap(partial(mapped_step, model), "batch", devices=devices)
        return jax.device_get(jax.block_until_ready(mapped(images, targets)))

    logits, batch_stats, gradients = jax.device_get(
        jax.jit(partial(step, network()))(
            images.reshape(8, 8, 8, 3), targets.reshape(8, 5)
        )
    )
    mapped_logits, mapped_stats, mapped_gradients = run_mapped(
        network(axis_name="batch")
    )
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    close(mapped_logits.reshape(8, 5), logits, atol=1e-4)
    for device in range(4):
        jax.tree.map(lambda a, b, i=device: close(a[i], b), mapped_stats, batch_stats)
    jax.tree.map(lambda a, b: close(a[0], b), mapped_gradients, gradients)

    local_logits, *_ = run_mapped(network())
    assert np.abs(local_logits.reshape(8, 5) - logits).max() > 1e-2


def test_stochastic_depth_drops_the_branch_of_whole_examples():
    def block(train):
        return InvertedResidual(
            features=4,
            expansion=1,
            kernel_size=3,
            stride=1,
            activation=jax.nn.silu,
            squeeze=False,
            drop_rate=0.25,
            train=train,
            conv=layers.conv,
            norm=partial(layers.batch_norm, train=False),
        )

    x = np.random.default_rng(0).normal(size=(400, 3, 3, 4)).astype(np.float32)
    variables = jax.jit(block(train=False).init)(jax.random.key(1), x)
    branch = jax.jit(block(train=False).apply)(variables, x) - x
    trained = jax.jit(block(train=True).apply)(
        variables, x, rngs={"dropout": jax.random.key(2)}
    )
    kept = np.any(trained != x, axis=(1, 2, 3))
    scale = np.where(kept, 1 / 0.75, 0).reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(trained - x, branch * scale, atol=1e-5)
    # Binomial(400, 0.75) has a standard deviation of 8.7.
    assert abs(kept.sum() - 300) < 40


def active_dropout_rates(name, train):
    """Rates of the dropout layers that draw masks."""
    return [
        layer.rate
        for layer, *_ in traced_layers(name, train)
        if isinstance(layer, layers.Dropout) and layer.rate and layer.train
    ]


def test_the_dropout_of_an_image_does_not_depend_on_its_batch():
    dropout, key = layers.Dropout(0.25, train=True), jax.random.key(0)
    x = jnp.ones((40, 3, 50))

    def drop(numbers, **options):
        variables = {"batch": {"numbers": jnp.asarray(numbers)}} if options else {}
        return dropout.apply(variables, x[: len(numbers)], rngs={"dropout": key})

    dropped = drop(range(40))
    assert set(np.unique(dropped)) == {0, np.float32(1 / 0.75)}
    # Binomial(6000, 0.25) has a standard deviation of 34.
    assert abs(np.sum(dropped == 0) - 1500) < 150
    assert np.any(dropped[0] != dropped[1])
    some = [7, 3, 39]
    np.testing.assert_array_equal(drop(some, given=True), dropped[np.array(some)])


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("conv3", []),
        ("resnet18", []),
        ("vgg11", [0.5, 0.5]),
        ("mobilenet_v2", [0.2]),
        # Stochastic depth in the blocks of 16 whose shortcut is the identity.
        (
            "efficientnet_b0",
            [0.2 * i / 16 for i in (2, 4, 6, 7, 9, 10, 12, 13, 14)] + [0.2],
        ),
    ],
)
def test_dropout_rates_are_torchvisions_and_active_in_training_only(name, rates):
    assert active_dropout_rates(name, train=True) == pytest.approx(rates)
    assert active_dropout_rates(name, train=False) == []


# Initial weights.


def uniform(fan_in):
    """torch.nn.Conv2d's and torch.nn.Linear's own: U(-b, b), b = fan_in ** -0.5."""
    return "uniform", fan_in**-0.5


def kaiming(fan):
    """torch.nn.init.kaiming_normal_: N(0, 2 / fan)."""
    return "normal", (2 / fan) ** 0.5


INITIAL_WEIGHTS = {
    "conv3": {
        "conv0/kernel": uniform(27),
        "conv2/kernel": uniform(9 * 128),
        "conv2/bias": uniform(9 * 128),
        "classifier/kernel": uniform(128 * 4 * 4),
    },
    "resnet18": {"conv1/kernel": kaiming(49 * 64), "fc/kernel": uniform(512)},
    # The stem of the modified networks is made anew, by PyTorch's default.
    "resnet18_modified": {
        "conv1/kernel": uniform(27),
        "layer1_0/conv1/kernel": kaiming(9 * 64),
    },
    "resnet20": {
        "conv1/kernel": kaiming(27),
        "layer3_0/conv1/kernel": kaiming(9 * 32),
        "linear/kernel": kaiming(64),
        "linear/bias": uniform(64),
    },
    "mobilenet_v2": {
        # A depthwise kernel counts all its outputs.
        "block9/depthwise_conv/kernel": kaiming(9 * 384),
        "classifier/kernel": ("normal", 0.01),
    },
    "efficientnet_b0": {
        "stage3_1/excite/kernel": kaiming(480),
        "stage3_1/excite/bias": ("constant", 0),
        "stage3_1/project_bn/scale": ("constant", 1),
        "stage3_1/project_bn/bias": ("constant", 0),
        # The classifier is cut from one of 1000 classes, whatever num_classes is.
        "classifier/kernel": ("uniform", 1000**-0.5),
        "classifier/bias": ("constant", 0),
    },
    "vgg11": {
        "conv2/kernel": kaiming(9 * 256),
        "conv2/bias": ("constant", 0),
        "fc2/kernel": ("normal", 0.01),
    },
}


@pytest.mark.parametrize("name", INITIAL_WEIGHTS)
def test_initial_weights_are_distributed_as_in_pytorch(name):
    model = create_model(name, num_classes=40, image_size=32)
    expected = INITIAL_WEIGHTS[name]

    @jax.jit  # draws nothing but the parameters that are looked at
    def draw(key):
        params = model.init(key, jnp.zeros((1, 32, 32, 3)))["params"]
        flat = flatten_dict(params, sep="/")
        return {path: flat[path] for path in expected}

    for path, values in jax.device_get(draw(jax.random.key(0))).items():
        kind, scale = expected[path]
        n = values.size
        if kind == "constant":
            assert np.all(values == scale), path
            continue
        if kind == "uniform":
            assert (1 - 10 / n) * scale < np.abs(values).max() <= scale, path
            std = scale / 3**0.5
        else:
            # Flax's truncated normal would leave nothing beyond 2.3 deviations.
            assert np.mean(np.abs(values) > 2.4 * scale) > 0.005, path
            std = scale
        assert abs(values.mean()) < 5 * std / n**0.5, path
        assert values.std() == pytest.approx(std, rel=4 / (2 * n) ** 0.5), path


def test_models_without_batch_norm_have_empty_batch_stats():
    model = create_model("conv1", num_classes=3, image_size=4, width=4, norm="none")
    variables = init_variables(model, jax.random.key(0), image_size=4, channels=1)
    assert variables["batch_stats"] == {}
    images = jax.ShapeDtypeStruct((2, 4, 4, 1), jnp.float32)
    assert jax.eval_shape(model.apply, variables, images).shape == (2, 3)


# Errors.


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet18modified", {}, r"did you mean 'resnet18_modified'.*one of conv1, "),
        ("conv3", {"depth": 4}, r"no option 'depth'.*axis_name, dtype, norm, width"),
        (
            "resnet18",
            {"width": 64},
            r"'resnet18' has no option 'width'.*axis_name, dty",
        ),
        ("conv3", {"norm": "layer"}, r"'layer'.*batch, instance, none"),
        ("conv3", {"width": 0}, r"width is 0"),
        ("conv3", {"dtype": "float16"}, r"'float16'.*float32, bfloat16"),
        ("conv6", {"image_size": 32}, r"image_size >= 64, got 32"),
        ("vgg11", {"image_size": 28}, r"image_size >= 32, got 28"),
        ("resnet18", {"num_classes": 0}, r"num_classes is 0"),
    ],
)
def test_refused_models(name, options, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **{"num_classes": 10, "image_size": 32} | options)


def test_convnet_refuses_images_of_another_size():
    model = create_model("conv3", num_classes=10, image_size=32)
    with pytest.raises(ValueError, match=r"image_size=32.*\(2, 64, 64, 3\)"):
        model.init(jax.random.key(0), jnp.zeros((2, 64, 64, 3)))
