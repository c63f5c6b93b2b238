"""Teachers that PyTorch runs: what they answer, and how they are told apart."""

import pathlib
import sys
import time
from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from gift_jax import registry
from gift_jax.augment import AugmentSpec
from gift_jax.data import info, preprocess
from gift_jax.distilled import DistilledDataset
from gift_jax.distilled.dataset import Metadata
from gift_jax.runtime.errors import InputError, MissingPackageError
from gift_jax.soft_labels import relabel
from gift_jax.teachers import TorchTeacher, torch_teacher
from gift_jax.torch_io import checkpoints, save_torch

SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
CLASSES = 5
DATASET = info.DatasetInfo(
    "made", CLASSES, 8, 3, preprocess.Normalization((0.5,) * 3, (0.25,) * 3)
)
MODULE = """
import torch
from torch import nn

class Tiny(nn.Module):
    def __init__(self, num_classes=5):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU())
        self.fc = nn.Linear(4, num_classes)

    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)))

def four():
    return Tiny(4)

def broken():
    network = Tiny()
    nn.init.constant_(network.fc.bias, float("nan"))
    return network

def demanding(depth):
    return Tiny()

def number():
    return 3
"""


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def my_models(torch, tmp_path, monkeypatch):
    (tmp_path / "my_torch_models.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_torch_models", raising=False)
    import my_torch_models

    return my_torch_models


def load(attribute="Tiny", **options):
    return TorchTeacher.load(f"torch:my_torch_models:{attribute}", DATASET, **options)


def pixels(count=6):
    rng = np.random.default_rng(0)
    return rng.uniform(size=(count, 8, 8, 3)).astype(np.float32)


def bare(torch, network, images):
    inputs = torch.from_numpy(((images - 0.5) / 0.25).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        return network.eval()(inputs).numpy()


def states(torch, network):
    """Weights unlike those that the module is made with."""
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor += 0.1
    return {name: t.numpy() for name, t in network.state_dict().items()}


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_it_answers_as_the_module_does(my_models, torch, kind):
    images = pixels()
    images.flags.writeable = False
    logits = load().logits(kind(images))
    expected = bare(torch, my_models.Tiny(), images)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    np.testing.assert_array_equal(images, pixels())


def test_batches_of_jax_are_not_copied(torch):
    images = jnp.asarray(pixels())
    shared = torch_teacher._shared(torch, images)
    assert shared.data_ptr() == images.unsafe_buffer_pointer()
    array = pixels()
    assert torch_teacher._shared(torch, array).data_ptr() == array.ctypes.data


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_weights_are_those_of_the_checkpoint(my_models, torch, tmp_path, prefix):
    network = my_models.Tiny()
    state = states(torch, network)
    wrapped = {f"{prefix}{name}": array for name, array in state.items()}
    save_torch(tmp_path / "x.pth", {"net": wrapped, "epoch": 3})
    teacher = load(checkpoint=str(tmp_path / "x.pth"))
    expected = bare(torch, network, pixels())
    np.testing.assert_allclose(teacher.logits(pixels()), expected, atol=1e-5)
    assert teacher.fingerprint != load().fingerprint


def test_weights_that_do_not_fit_are_told(my_models, torch, tmp_path):
    state = states(torch, my_models.Tiny())
    del state["body.0.bias"]
    state["fc.weight"] = state["fc.weight"][:3]
    save_torch(tmp_path / "x.pth", state)
    with pytest.raises(InputError) as caught:
        load(checkpoint=str(tmp_path / "x.pth"))
    assert str(caught.value).endswith(
        "missing: body.0.bias; other shapes: fc.weight is (3, 4) and should be (5, 4)."
    )
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        load(checkpoint=str(tmp_path / "none.pth"))


def test_the_fingerprint_is_that_of_weights_code_and_statistics(
    my_models, tmp_path, monkeypatch
):
    first = load().fingerprint
    assert load().fingerprint == first
    other = preprocess.Normalization((0.5,) * 3, (0.3,) * 3)
    assert load(preprocess=other).fingerprint != first
    (tmp_path / "my_torch_models.py").write_text(MODULE + "# changed\n")
    registry.reload_edited()
    assert load().fingerprint != first


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("Tinny", "did you mean 'Tiny'"),
        ("number", "gives a int, expected a torch.nn.Module"),
        ("demanding", "missing a required argument: 'depth'"),
        ("four", r"returns shape \(6, 4\) for 6 images of 5 classes"),
        ("broken", "NaN or infinite"),
    ],
)
def test_mistakes(my_models, attribute, message):
    with pytest.raises(InputError, match=message) as caught:
        load(attribute).logits(pixels())
    assert "\n" not in str(caught.value)


def test_names_that_are_none(torch):
    with pytest.raises(InputError, match="names no module, expected torch:package"):
        TorchTeacher.load("torch:ResNet20", DATASET)
    with pytest.raises(InputError, match="'no_such_models:x' cannot be imported"):
        TorchTeacher.load("torch:no_such_models:x", DATASET)


@pytest.mark.parametrize("package", ["torch", "timm", "torchvision"])
def test_what_is_not_installed_is_told(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=r'pip install -e "\.\[t') as caught:
        TorchTeacher.load(f"{package}:my_torch_models:Tiny", DATASET)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["timm", "torchvision"])
def test_networks_of_libraries(torch, source, tmp_path):
    library = pytest.importorskip(source, exc_type=(ImportError, RuntimeError))
    make = library.create_model if source == "timm" else library.models.get_model
    with pytest.raises(InputError, match=f"{source} has no network .*resnet18"):
        TorchTeacher.load(f"{source}:resnet18x", DATASET)
    network = make("resnet18", num_classes=CLASSES)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "x.pth")
    teacher = TorchTeacher.load(
        f"{source}:resnet18", DATASET, checkpoint=str(tmp_path / "x.pth")
    )
    expected = bare(torch, network, pixels())
    np.testing.assert_allclose(teacher.logits(pixels()), expected, atol=1e-4)


@pytest.mark.parametrize("has_own_inputs", [True, False])
def test_networks_of_other_inputs_transform_them_as_their_weights_ask(
    has_own_inputs, monkeypatch
):
    # torchvision's `googlenet` and `inception_v3`; others have no such name.
    network = mock.Mock(spec=["load_state_dict", *["transform_input"] * has_own_inputs])
    torchvision = mock.MagicMock()
    torchvision.models.get_model.return_value = network
    torchvision.models.list_models.return_value = ["googlenet"]
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    monkeypatch.setattr(checkpoints, "torchvision_state_dict", mock.Mock())
    made, _ = torch_teacher._torchvision("googlenet", 1000, has_weights=False)
    assert made is network
    network.load_state_dict.assert_called_once()
    assert getattr(network, "transform_input", None) is (has_own_inputs or None)


# A public checkpoint with module names of its own (github.com/Rehan000/forge-tta), and
# the network that a user would write for it: MobileNetV2 of width 0.5, whose second
# stage keeps the image's size.
MOBILENET = """
from torch import nn

def norm(inputs, outputs, kernel, stride=1, groups=1):
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, 1, groups, False)
    return conv, nn.BatchNorm2d(outputs)

class Block(nn.Module):
    def __init__(self, inputs, outputs, factor, stride):
        super().__init__()
        wide, self.add = inputs * factor, stride == 1 and inputs == outputs
        widen = (*norm(inputs, wide, 1), nn.ReLU6()) if factor > 1 else ()
        depthwise = (*norm(wide, wide, 3, stride, wide), nn.ReLU6())
        self.conv = nn.Sequential(*widen, *depthwise, *norm(wide, outputs, 1))

    def forward(self, x):
        return x + self.conv(x) if self.add else self.conv(x)

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.stem = nn.Sequential(*norm(3, 16, 3, 2), nn.ReLU6())
        blocks, inputs = [], 16
        for factor, outputs, count, stride in (
            (1, 8, 1, 1), (6, 16, 2, 1), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1),
            (6, 80, 3, 2), (6, 160, 1, 1),
        ):
            for i in range(count):
                blocks.append(Block(inputs, outputs, factor, 1 if i else stride))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(*norm(160, 640, 1), nn.ReLU6())
        self.linear = nn.Linear(640, num_classes)

    def forward(self, x):
        return self.linear(self.head(self.blocks(self.stem(x))).mean((2, 3)))
"""


def test_a_public_mobilenet_with_names_of_its_own(torch, tmp_path, monkeypatch):
    checkpoint = SHARED / "teachers/mobilenetv2_tinyimagenet.pt"
    folder = SHARED / "distilled/d4m_tiny_imagenet_ipc1"
    if not (checkpoint.exists() and folder.exists()):
        pytest.skip("needs a teacher and a distilled dataset in ../shared")
    (tmp_path / "forge_net.py").write_text(MOBILENET)
    monkeypatch.syspath_prepend(tmp_path)
    teacher = TorchTeacher.load(
        "torch:forge_net:Net",
        info.dataset_info("tiny_imagenet"),
        checkpoint=str(checkpoint),
    )
    assert teacher.preprocess == info.IMAGENET
    files = sorted(folder.glob("*/*.png"), key=lambda file: int(file.parent.name))
    images = np.stack([np.asarray(Image.open(f).convert("RGB")) for f in files])
    found = teacher.logits(images.astype(np.float32) / 255).argmax(1)
    # 37 of the 200 images that a diffusion model made; chance is one. On every fifth
    # image of the validation split it has 54.7%.
    assert np.sum(found == np.arange(200)) == pytest.approx(37, abs=1)


def dataset(count, side):
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(count, side, side, 3)).astype(np.float32)
    labels = (np.arange(count) % CLASSES).astype(np.int32)
    return DistilledDataset(
        images, labels, Metadata("made", CLASSES, "random", "x"), DATASET.normalization
    )


@pytest.mark.slow
def test_relabelling_is_about_as_fast_as_the_module_alone(torch):
    timm = pytest.importorskip("timm", exc_type=(ImportError, RuntimeError))
    network = timm.create_model("resnet18", num_classes=CLASSES).eval()
    teacher = TorchTeacher("torch:x", network, DATASET.normalization, CLASSES)
    distilled = dataset(256, 64)
    inputs = torch.from_numpy(distilled.images.transpose(0, 3, 1, 2).copy())

    def alone():
        with torch.inference_mode():
            network(inputs)

    def relabelled():
        relabel.relabel_views(
            teacher,
            distilled,
            augment=AugmentSpec(pad_crop=4, flip=True),
            views=1,
            seed=0,
            batch_size=256,
        )

    seconds = {alone: [], relabelled: []}
    for _ in range(6):
        for function, found in seconds.items():
            began = time.monotonic()
            function()
            found.append(time.monotonic() - began)
    print({f.__name__: 256 / min(found) for f, found in seconds.items()})
    assert min(seconds[relabelled]) < 1.2 * min(seconds[alone])
