"""Every model by name: sizes, options, errors, and networks of the user's own."""

import sys

import flax
import jax
import jax.numpy as jnp
import pytest

from gift_jax.models import (
    MODELS,
    create_model,
    init_variables,
    layers,
    model_options,
    norms,
)
from gift_jax.models.registry import check_model
from gift_jax.runtime.errors import InputError

# (classes, image size, parameters). Sources of the counts: torchvision's `num_params`
# (resnet, mobilenet_v2, efficientnet_b0, vgg); timm's (vit: 5.7M and 22.1M); Zagoruyko
# and Komodakis (WRN-28-10: 36.5M); for the modified ResNets less the
# 7x7 stem, plus the 3x3 one: 64 * 3 * (49 - 9) = 7680 fewer; akamaster's README (0.27M,
# 0.46M, 0.66M, 0.85M, 1.7M); for ConvNets the sum over their layers, and 320,010 is
# also what Dataset Condensation reports for the ConvNet-3 on CIFAR-10.
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
    "resnet110": (10, 32, 1_727_962),
    "wrn": (10, 32, 36_479_194),
    "mobilenet_v2": (1000, 224, 3_504_872),
    "mobilenet_v2_modified": (1000, 64, 3_504_872),
    "efficientnet_b0": (1000, 224, 5_288_548),
    "vgg11": (1000, 224, 132_863_336),
    "vgg13": (1000, 224, 133_047_848),
    "vgg16": (1000, 224, 138_357_544),
    "vgg19": (1000, 224, 143_667_240),
    "vgg11_bn": (1000, 224, 132_868_840),
    "vgg13_bn": (1000, 224, 133_053_736),
    "vgg16_bn": (1000, 224, 138_365_992),
    "vgg19_bn": (1000, 224, 143_678_248),
    # As many as below but for embedding, places and head: that of DeiT-Ti on CIFAR.
    "vit_t_4": (10, 32, 5_362_762),
    "vit_t_16": (1000, 224, 5_717_416),
    "vit_s_16": (1000, 224, 22_050_664),
}


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
    "wrn",
    "mobilenet_v2",
    "efficientnet_b0",
    "vgg11",
    "vgg11_bn",
    "vit_s_16",
]


@pytest.mark.parametrize("name", FAMILIES)
def test_options_reach_every_layer(name):
    calls = traced_layers(name, train=True, dtype="bfloat16", axis_name="batch")
    batch_norms = [layer for layer, *_ in calls if isinstance(layer, norms.BatchNorm)]
    assert bool(batch_norms) == (name not in ("vgg11", "vit_s_16"))
    for norm in batch_norms:
        assert norm.axis_name == "batch"
        assert not norm.use_running_average
    # The classifier and the network as a whole return float32, all others bfloat16.
    dtypes = [dtype for _, method, dtype in calls if method == "__call__"]
    assert set(dtypes[:-2]) == {jnp.dtype("bfloat16")}
    assert dtypes[-2:] == [jnp.float32, jnp.float32]


def active_dropout_rates(name, train):
    """Rates of the dropout layers that draw masks."""
    return [
        layer.rate
        for layer, *_ in traced_layers(name, train)
        if isinstance(layer, layers.Dropout) and layer.rate and layer.train
    ]


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


def test_models_without_batch_norm_have_empty_batch_stats():
    model = create_model("conv1", num_classes=3, image_size=4, width=4, norm="none")
    variables = init_variables(model, jax.random.key(0), image_size=4, channels=1)
    assert variables["batch_stats"] == {}
    images = jax.ShapeDtypeStruct((2, 4, 4, 1), jnp.float32)
    assert jax.eval_shape(model.apply, variables, images).shape == (2, 3)


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
        ("vgg11_bn", {"head": "fc"}, r"head of vgg11 'fc'.*imagenet, cifar, linear"),
        ("wrn", {"depth": 40, "widen": 0}, r"depth is 40 and widen 0.*10, 16, 22"),
        ("wrn", {"depth": 26}, r"depth is 26 and widen 10.*10, 16, 22"),
        ("mobilenet_v2", {"width_mult": 0.0}, r"width_mult is 0\.0"),
        ("resnet18_modified", {"norm": "none"}, r"'none'.*batch, instance"),
        ("vit_s_16", {"image_size": 30}, r"16x16 patches.*got 30"),
        ("resnet18", {"num_classes": 0}, r"num_classes is 0"),
    ],
)
def test_refused_models(name, options, message):
    with pytest.raises(InputError, match=message):
        create_model(name, **{"num_classes": 10, "image_size": 32} | options)


# Options that change parameters.


OPTIONS = {
    **{f"conv{depth}": {"width": 128, "norm": "batch"} for depth in range(1, 9)},
    **{f"resnet{depth}": {"shortcut": "pad"} for depth in (20, 32, 44, 56, 110)},
    **{f"resnet{depth}_modified": {"norm": "batch"} for depth in (18, 34, 50, 101)},
    "wrn": {"depth": 28, "widen": 10},
    "mobilenet_v2": {"width_mult": 1.0},
    "mobilenet_v2_modified": {"width_mult": 1.0},
    **{name: {"head": "imagenet"} for name in PARAMETERS if name.startswith("vgg")},
}


def test_options_are_those_that_change_parameters():
    assert set(MODELS) == set(PARAMETERS)
    for name in MODELS:
        assert model_options(name) == OPTIONS.get(name, {})
    with pytest.raises(InputError, match="did you mean 'conv3'"):
        model_options("convv3")


# Networks of the user's own.

MINE = """
import flax.linen as nn
import jax.numpy as jnp

class Tiny(nn.Module):
    num_classes: int
    width: int = 4

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.Dense(self.width)(images.mean((1, 2)))
        return nn.Dense(self.num_classes)(x)

class Sized(nn.Module):
    num_classes: int
    image_size: int
    axis_name: str | None
    dtype: object = jnp.float32

    @nn.compact
    def __call__(self, images, *, train=False):
        x = images.reshape(-1, 3 * self.image_size**2).astype(self.dtype)
        x = nn.BatchNorm(not train, axis_name=self.axis_name)(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(self.num_classes, dtype=jnp.float32)(x)

def factory(num_classes, *, depth=2):
    return Tiny(num_classes, width=10 * depth)

def not_a_module(num_classes):
    return num_classes

def demanding(num_classes, *, needed):
    return Tiny(num_classes)

def not_for_us():
    return Tiny(3)

class NoTrain(nn.Module):
    num_classes: int

    def __call__(self, images):
        return images.mean((1, 2))

class Stateful(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, train=False):
        self.variable("cache", "mean", jnp.zeros, (3,))
        return nn.Dense(self.num_classes)(images.mean((1, 2)))

class Probabilities(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(self.num_classes + 1)(images.mean((1, 2)))

class Classes(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, train=False):
        logits = nn.Dense(self.num_classes)(images.mean((1, 2)))
        return logits > 0

class Several(nn.Module):
    num_classes: int

    def __call__(self, images, train=False):
        return images, images
"""
TASK = {"num_classes": 5, "image_size": 8}


@pytest.fixture(autouse=True, scope="module")
def mine(tmp_path_factory):
    directory = tmp_path_factory.mktemp("mine")
    (directory / "my_nets.py").write_text(MINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(directory)
        yield
    sys.modules.pop("my_nets", None)


def test_a_network_of_ones_own_is_given_what_its_signature_has():
    tiny = create_model("my_nets:Tiny", **TASK, axis_name="batch", dtype="float32")
    assert (tiny.num_classes, tiny.width) == (5, 4)
    assert create_model("my_nets:Tiny", **TASK, width=7).width == 7
    assert create_model("my_nets:factory", **TASK, depth=3).width == 30
    sized = create_model("my_nets:Sized", **TASK, axis_name="x", dtype="bfloat16")
    found = (sized.num_classes, sized.image_size, sized.axis_name, sized.dtype)
    assert found == (5, 8, "x", jnp.bfloat16)
    assert model_options("my_nets:Tiny") == {"width": 4}
    assert model_options("my_nets:factory") == {"depth": 2}
    assert model_options("my_nets:Sized") == {}


@pytest.mark.parametrize("name", ["Tiny", "Sized", "factory"])
def test_a_network_of_ones_own_is_called_as_the_others(name):
    model = create_model(f"my_nets:{name}", **TASK, axis_name="batch")
    check_model(name, model, channels=3, **TASK)
    variables = init_variables(model, jax.random.key(0), image_size=8)
    assert set(variables) == {"params", "batch_stats"}
    logits = jax.eval_shape(model.apply, variables, jnp.zeros((2, 8, 8, 3)))
    assert (logits.shape, logits.dtype) == ((2, 5), jnp.float32)


@pytest.mark.parametrize("name", ["conv1", "mobilenet_v2"])
def test_the_project_s_networks_pass_the_check(name):
    model = create_model(name, **TASK, axis_name="batch", dtype="bfloat16")
    check_model(name, model, channels=1, **TASK)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Tinny", {}, "did you mean 'Tiny'"),
        ("TASK", {}, "unknown attribute"),
        ("jnp", {}, "is a module, expected something to call"),
        ("not_a_module", {}, "gives a int, expected a Flax module"),
        ("demanding", {}, "num_classes=5 and {}: .*'needed'"),
        ("not_for_us", {}, "unexpected keyword argument 'num_classes'"),
        ("Tiny", {"depth": 2}, "'my_nets:Tiny' has no option 'depth'; it takes width"),
        ("Tiny", {"dtype": "bfloat16"}, "has no option 'dtype'"),
        ("Sized", {"dtype": "float16"}, "dtype of .* 'float16'"),
        ("Sized", {"dtype": jnp.bfloat16}, "dtype of .*expected one of float32, bf"),
    ],
)
def test_what_gives_no_network_is_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        create_model(f"my_nets:{name}", **TASK, **options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoTrain", "cannot be called with images and train=True or False: .*'train'"),
        ("Stateful", "has variables cache, expected no others than params"),
        ("Probabilities", r"float32 \(2, 6\) for 2 images, expected .* \(2, 5\)"),
        ("Classes", r"gives bool \(2, 5\) for 2 images, expected float logits"),
        ("Several", "gives a tuple for 2 images"),
    ],
)
def test_what_is_called_otherwise_is_refused(name, message):
    model = create_model(f"my_nets:{name}", **TASK)
    with pytest.raises(InputError, match=message):
        check_model(name, model, channels=3, **TASK)
