"""Weights from PyTorch and back, against what PyTorch's networks answer.

The fixture torch_reference.npz holds PyTorch's names, shapes and logits, so most tests
need no PyTorch; those that do are skipped without it.
"""

import json
import os
import pickle
import runpy
import sys
import types
import zipfile
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st

from gift_jax.models import create_model
from gift_jax.torch_io import (
    export_torch,
    import_torch,
    import_torchvision,
    save_torch,
    torch_files,
)
from tests import launch

FIXTURES = Path(__file__).parents[1] / "fixtures"
SHARED = Path(__file__).resolve().parents[3] / "shared"

reference = types.SimpleNamespace(
    **runpy.run_path(str(FIXTURES / "torch_reference.py"))
)
EXPECTED = np.load(FIXTURES / "torch_reference.npz")
SHAPES = {
    case: {name: tuple(shape) for name, shape in shapes.items()}
    for case, shapes in json.loads(str(EXPECTED["shapes"])).items()
}
# Those whose names are not the first that a model has.
LAYOUTS = {
    **{f"datm_{norm}": "features" for norm in ("batch", "instance", "none")},
    "resnet20_chenyaofo": "chenyaofo",
    "resnet18_kuangliu": "kuangliu",
    "resnet18_dc": "dc",
}
LARGE = ("resnet10", "resnet11")
WITH_LOGITS = [case for case in SHAPES if case in EXPECTED]


def arguments(case):
    """Keyword arguments that name the model of a case."""
    model, image_size, _, options, _ = reference.CASES[case]
    sizes = {"num_classes": reference.NUM_CLASSES, "image_size": image_size}
    return {"model": model} | sizes | options


def make_model(model, **keywords):
    return create_model(model, **keywords)


def zero_variables(channels=3, **keywords):
    """Variables of zeros, which take no time to make."""
    size = keywords["image_size"]
    images = jax.ShapeDtypeStruct((1, size, size, channels), np.float32)
    shapes = jax.eval_shape(make_model(**keywords).init, jax.random.key(0), images)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)


def random_variables(seed, **keywords):
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: generator.normal(size=leaf.shape).astype(np.float32),
        zero_variables(**keywords),
    )


def assert_equal_variables(found, expected):
    found, expected = flatten_dict(found), flatten_dict(expected)
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        np.testing.assert_array_equal(found[path], leaf)


CONV = {"model": "conv2", "num_classes": 3, "image_size": 8, "width": 4}


def conv_state(**changes):
    """State dict of the network CONV, with entries replaced, or removed by None."""
    variables = random_variables(0, **CONV)
    state = export_torch(variables, **CONV) | changes
    return {name: array for name, array in state.items() if array is not None}


# Values.


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.slow) if case.startswith(LARGE) else case
        for case in SHAPES
    ],
)
def test_names_and_shapes_are_pytorchs(case):
    keywords = arguments(case)
    variables = zero_variables(channels=reference.CASES[case][2], **keywords)
    state = export_torch(variables, layout=LAYOUTS.get(case), **keywords)
    assert {name: array.shape for name, array in state.items()} == SHAPES[case]


# Of these, other cases have the same code.
SLOW = (
    "vgg11",
    "resnet18_kuangliu",
    "resnet32_akamaster",
    "wrn_16_2",
    "mobilenet_chenyaofo",
    "vgg16_bn",
    "vgg19_chenyaofo",
)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.slow) if case in SLOW else case
        for case in WITH_LOGITS
    ],
)
def test_imported_weights_give_pytorchs_logits(case):
    keywords = arguments(case)
    variables = import_torch(reference.seeded_state(SHAPES[case]), **keywords)
    model = make_model(**keywords)
    # The tests' quick compilation rounds more coarsely.
    apply = jax.jit(partial(model.apply, train=False), compiler_options=launch.AS_USERS)
    logits = apply(variables, reference.seeded_images(case))
    expected = EXPECTED[case]
    assert np.abs(logits - expected).max() < 1e-4 * expected.std()


def test_published_resnet20_gives_its_logits():
    checkpoint = SHARED / "data/teachers/resnet20-12fca82f.th"
    if not checkpoint.exists():
        pytest.skip(f"needs the published checkpoint {checkpoint.name} in ../shared")
    golden = np.load(FIXTURES / "resnet20_cifar10.npz")
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    std = np.array([0.229, 0.224, 0.225], np.float32)
    images = (golden["images_uint8"] / np.float32(255) - mean) / std
    keywords = {"num_classes": 10, "image_size": 32}
    variables = import_torch(checkpoint, model="resnet20", **keywords)
    model = create_model("resnet20", **keywords)
    logits = jax.jit(partial(model.apply, train=False))(variables, images)
    np.testing.assert_allclose(logits, golden["logits"], atol=1e-4)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_both_convnet_layouts_are_the_official_state(norm):
    golden = np.load(FIXTURES / f"convnet_{norm}.npz")
    state = {
        name: golden[name]
        for name in golden
        if name.startswith(("layers.", "classifier."))
    }
    keywords = {"model": "conv3", "num_classes": 10, "image_size": 32} | {
        "width": 32,
        "norm": norm,
    }
    variables = import_torch(state, **keywords)
    exported = export_torch(variables, **keywords)
    for name in exported:
        np.testing.assert_array_equal(exported[name], state[name])
    assert set(state) - set(exported) == {n for n in state if "num_batches" in n}
    in_sequence = export_torch(variables, layout="features", **keywords)
    assert_equal_variables(import_torch(in_sequence, **keywords), variables)


# The round trip.

conv_keywords = st.builds(
    lambda depth, width, norm, classes, extra: {
        "model": f"conv{depth}",
        "num_classes": classes,
        "image_size": 2**depth + extra,
        "width": width,
        "norm": norm,
    },
    st.integers(1, 4),
    st.integers(1, 6),
    st.sampled_from(["batch", "instance", "none"]),
    st.integers(1, 5),
    st.integers(0, 30),
)
resnet_keywords = st.builds(
    lambda model, classes: {"model": model, "num_classes": classes, "image_size": 8},
    st.sampled_from(["resnet20", "resnet18_modified"]),
    st.integers(1, 5),
)
wrappers = st.sampled_from(
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"state_dict": state, "best_prec1": 91.7},
        lambda state: {"net": {f"module.{k}": v for k, v in state.items()}},
        lambda state: {f"module._orig_mod.{k}": v for k, v in state.items()},
        lambda state: state | {"layers.norm.0.num_batches_tracked": np.array(3)},
        lambda state: {"epoch": 3, "ema": {f"model.{k}": v for k, v in state.items()}},
    ]
)


@settings(max_examples=25, deadline=None)
@given(
    keywords=st.one_of(conv_keywords, conv_keywords, conv_keywords, resnet_keywords),
    channels=st.sampled_from([1, 3]),
    sequence=st.booleans(),
    wrap=wrappers,
)
def test_import_undoes_export(keywords, channels, sequence, wrap):
    variables = random_variables(0, channels=channels, **keywords)
    is_conv = keywords["model"].startswith("conv")
    layout = "features" if sequence and is_conv else None
    state = wrap(export_torch(variables, layout=layout, **keywords))
    found = import_torch(state, **keywords)
    assert_equal_variables(found, {"batch_stats": {}} | variables)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype("float32")}


# Refusals.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classifier.weight": np.zeros((9, 16))}, r"9 classes.*num_classes is 3"),
        (
            {"classifier.weight": np.zeros((3, 64))},
            r"classifier\.weight is \(3, 64\) an",
        ),
        ({"classifier.weight": np.zeros((3, 64))}, r"and should be \(3, 16\)"),
        ({"layers.conv.1.bias": None}, r"missing: layers\.conv\.1\.bias"),
        ({"layers.conv.2.bias": np.zeros(4)}, r"unused: layers\.conv\.2\.bias"),
        ({"layers.norm.0.running_var": np.zeros(5)}, r"is \(5,\) and should be \(4,\)"),
    ],
)
def test_states_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        import_torch(conv_state(**changes), **CONV)


def test_state_of_another_norm_is_refused():
    with pytest.raises(ValueError, match=r"unused: layers\.norm\.0\.running_mean"):
        import_torch(conv_state(), norm="instance", **CONV)


@pytest.mark.parametrize("source", [{}, {"model": {}}, {"optimizer": {"lr": 0.1}}])
def test_dicts_without_tensors_are_refused(source):
    with pytest.raises(ValueError, match="no state dict"):
        import_torch(source, **CONV)


def test_export_refuses_an_unknown_layout():
    variables = random_variables(0, **CONV)
    with pytest.raises(ValueError, match=r"no layout 'datm'; it has layers, features"):
        export_torch(variables, layout="datm", **CONV)


def test_export_refuses_variables_of_another_model():
    flat = flatten_dict(random_variables(0, **CONV))
    flat["params", "conv0", "kernel"] = np.zeros((3, 3, 3, 5), np.float32)
    del flat["batch_stats", "norm1", "var"]
    with pytest.raises(ValueError, match=r"missing: batch_stats/norm1/var; other sha"):
        export_torch(unflatten_dict(flat), **CONV)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"observer\.pth"):
        import_torch(tmp_path / "observer.pth", **CONV)


# Files, which need no PyTorch.


@pytest.fixture
def without_torch(monkeypatch):
    for name in ("torch", "torchvision", "torchvision.models"):
        monkeypatch.setitem(sys.modules, name, None)


def test_files_need_no_pytorch_but_torchvisions_weights_do(without_torch, tmp_path):
    variables = random_variables(0, **CONV)
    path = tmp_path / "cifar10_conv2.pth"
    path.write_bytes(b"old")
    save_torch(path, {"model": export_torch(variables, **CONV)})
    assert list(tmp_path.iterdir()) == [path]
    assert list(torch_files.load_torch(path)) == ["model"]
    assert_equal_variables(import_torch(path, **CONV), variables)
    with pytest.raises(FileNotFoundError, match="no directory"):
        save_torch(tmp_path / "absent" / "conv2.pth", {})
    with pytest.raises(ImportError, match=r'resnet18 .*pip install -e "\.\[torch\]"'):
        import_torchvision("resnet18")


class RunsCode:
    """Makes a directory when it is unpickled."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoint_with_code_is_refused(without_torch, tmp_path, zipped):
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    checkpoint = {"model": {"epoch": 3}, "hook": RunsCode(trace)}
    pickled = pickle.dumps(checkpoint, protocol=2)
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("evil/data.pkl", pickled)
    else:
        header = (torch_files._LEGACY_MAGIC, 1001, {"little_endian": True})
        parts = [pickle.dumps(part, protocol=2) for part in header]
        path.write_bytes(b"".join(parts) + pickled)
    with pytest.raises(ValueError, match=r"evil\.pth .*\.mkdir\. .*state_dict\(\)"):
        import_torch(path, **CONV)
    assert not trace.exists()
    pickle.loads(pickled)
    assert trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros(3), "holds a tensor, but a checkpoint is a dict"),
        ([1, 2], "holds a list, but a checkpoint is a dict"),
    ],
)
def test_files_of_something_else_are_refused(tmp_path, content, message):
    path = tmp_path / "tensor.pth"
    torch_files.save_torch(path, content)
    with pytest.raises(ValueError, match=rf"tensor\.pth.* {message}"):
        import_torch(path, **CONV)


def test_damaged_file_is_named(tmp_path):
    path = tmp_path / "observer.pth"
    path.write_bytes(b"<html>Quota exceeded</html>")
    with pytest.raises(ValueError, match=r"observer\.pth .*download it again"):
        import_torch(path, **CONV)


# Files of PyTorch and for PyTorch.


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def test_saved_checkpoint_is_an_observer_of_pytorch(torch, tmp_path):
    variables = random_variables(0, **CONV)
    path = tmp_path / "cifar10_conv2.pth"
    save_torch(path, {"model": export_torch(variables, **CONV)})
    checkpoint = torch.load(path, weights_only=True)
    assert list(checkpoint) == ["model"]
    expected = export_torch(variables, **CONV)
    assert checkpoint["model"].keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(checkpoint["model"][name].numpy(), array)


@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoint_of_pytorch_is_imported(torch, tmp_path, zipped):
    state = {name: torch.from_numpy(array) for name, array in conv_state().items()}
    path = tmp_path / "observer.pth"
    checkpoint = {"model": state, "epoch": 3}
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    assert_equal_variables(import_torch(path, **CONV), random_variables(0, **CONV))


def test_half_precision_tensors_become_float32(torch, tmp_path):
    state = {k: torch.from_numpy(v).bfloat16() for k, v in conv_state().items()}
    exact = state["layers.conv.0.weight"].float().numpy().transpose(2, 3, 1, 0)
    torch.save(state, tmp_path / "half.pth")
    for source in (state, tmp_path / "half.pth"):
        kernel = import_torch(source, **CONV)["params"]["conv0"]["kernel"]
        assert kernel.dtype == np.float32
        np.testing.assert_array_equal(kernel, exact)


# PyTorch's networks themselves.


WITH_TORCHVISION = (
    *("resnet18", "resnet34", "resnet50", "resnet101"),
    *("mobilenet", "efficientnet_b0", "vgg"),
)


def torch_network(case):
    pytest.importorskip("torch")
    if case.startswith("vit"):
        pytest.importorskip("timm", exc_type=(ImportError, RuntimeError))
    elif case not in reference.SMALL_RESNETS and case.startswith(WITH_TORCHVISION):
        # Its compiled part may not fit the PyTorch beside it.
        pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
    return reference.torch_network(case)


@pytest.mark.parametrize("case", SHAPES)
def test_fixture_holds_the_names_of_this_pytorch(case):
    assert reference.state_shapes(torch_network(case)) == SHAPES[case]


@pytest.mark.parametrize("case", WITH_LOGITS)
def test_fixture_holds_the_logits_of_this_pytorch(case):
    logits = reference.torch_logits(case, torch_network(case))
    expected = EXPECTED[case]
    assert np.abs(logits - expected).max() < 1e-4 * expected.std()


@pytest.mark.parametrize("case", ["datm_batch", "resnet20", "resnet18_modified"])
def test_pytorch_loads_exported_weights(torch, case):
    keywords = arguments(case)
    variables = random_variables(0, **keywords)
    state = export_torch(variables, layout=LAYOUTS.get(case), **keywords)
    network = torch_network(case)
    network.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    assert_equal_variables(import_torch(network.state_dict(), **keywords), variables)


def test_train_mode_agrees_with_pytorch(torch):
    case = "resnet18_modified"
    network, keywords = torch_network(case).train(), arguments(case)
    images = reference.seeded_images(case)
    variables = import_torch(reference.seeded_state(SHAPES[case]), **keywords)
    reference.torch_logits(case, network.eval())  # loads the seeded weights
    nchw = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        expected = network.train()(nchw).numpy()
    apply = make_model(**keywords).apply
    logits, updates = jax.jit(partial(apply, train=True, mutable=["batch_stats"]))(
        variables, images
    )
    assert np.abs(logits - expected).max() < 1e-3 * expected.std()
    np.testing.assert_allclose(
        updates["batch_stats"]["bn1"]["mean"], network.bn1.running_mean, atol=1e-5
    )


# torchvision's weights, with its download replaced.


class FakeWeights:
    url = "https://download.pytorch.org/models/resnet18-f37072fd.pth"

    def __init__(self, outcome):
        self.outcome = outcome

    def get_state_dict(self, *, check_hash):
        assert check_hash
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def fake_torchvision(monkeypatch, outcome):
    weights = {"IMAGENET1K_V1": FakeWeights(outcome)}

    class Weights(dict):
        __members__ = weights

    models = types.ModuleType("torchvision.models")
    models.get_model_weights = lambda name: Weights(weights)
    models.list_models = lambda: ["resnet18"]
    package = types.ModuleType("torchvision")
    package.models = models
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)


def test_torchvision_weights_are_imported(monkeypatch):
    shapes = SHAPES["resnet18"] | {"fc.weight": (1000, 512), "fc.bias": (1000,)}
    state = reference.seeded_state(shapes)
    fake_torchvision(monkeypatch, state)
    expected = import_torch(state, model="resnet18", num_classes=1000, image_size=224)
    assert_equal_variables(import_torchvision("resnet18"), expected)


def test_torchvision_without_network_names_the_file(monkeypatch):
    fake_torchvision(monkeypatch, OSError("no route to host"))
    with pytest.raises(ConnectionError, match=r"resnet18-f37072fd\.pth.*no route"):
        import_torchvision("resnet18")
    with pytest.raises(ValueError, match="no weights 'V3' for resnet18"):
        import_torchvision("resnet18", weights="V3")
    with pytest.raises(ValueError, match="no network 'conv3'"):
        import_torchvision("conv3")
