"""Where the modules of each network are found in its PyTorch state dict.

One table per network and layout serves import and export. A table maps the path of a
Flax module ("layer1_0/conv1") to the PyTorch module with the same tensors
("layer1.0.conv1"), in PyTorch's order: the first convolution comes first, the
classifier last.
"""

import functools
from collections.abc import Iterable
from typing import NamedTuple

import flax.linen as nn

from gift_jax.models import efficientnet, mobilenet, vgg
from gift_jax.models.cifar_resnet import CifarResNet
from gift_jax.models.convnet import ConvNet
from gift_jax.models.efficientnet import EfficientNetB0
from gift_jax.models.mobilenet import MobileNetV2
from gift_jax.models.resnet import ResNet
from gift_jax.models.vgg import VGG
from gift_jax.models.vit import VisionTransformer
from gift_jax.models.wide_resnet import WideResNet
from gift_jax.runtime.errors import InputError


class TorchModule(NamedTuple):
    """A module of a PyTorch network.

    Attributes:
      name: Its name, the prefix of its tensors in the state dict.
      flattened: For a linear layer that reads a flattened feature map, the map's
          (channels, height, width). PyTorch flattens in this order, an NHWC network
          in the order (height, width, channels).
    """

    name: str
    flattened: tuple[int, int, int] | None = None


Table = dict[str, TorchModule]


@functools.singledispatch
def torch_tables(model: nn.Module) -> dict[str, Table]:
    """The tables of a model by layout; the first layout is the one exported by default.

    Args:
      model: A model of `create_model`.

    Returns:
      {layout: {path of the Flax module: PyTorch module}}.
    """
    raise InputError(f"No table of PyTorch names for {type(model).__name__}.")


@torch_tables.register
def _convnet(model: ConvNet) -> dict[str, Table]:
    head = TorchModule("classifier", (model.width, model.final_size, model.final_size))
    has_norm = model.norm != "none"
    # RDED, GIFT and CIM (data/utils/models.py): one list for each kind of layer.
    by_kind: Table = {}
    # Dataset Condensation, MTT, DATM (networks.py): one sequence of convolution, norm,
    # activation, pool.
    in_sequence: Table = {}
    for i in range(model.depth):
        start = i * (4 if has_norm else 3)
        by_kind[f"conv{i}"] = TorchModule(f"layers.conv.{i}")
        in_sequence[f"conv{i}"] = TorchModule(f"features.{start}")
        if has_norm:
            by_kind[f"norm{i}"] = TorchModule(f"layers.norm.{i}")
            in_sequence[f"norm{i}"] = TorchModule(f"features.{start + 1}")
    return {
        "layers": by_kind | {"classifier": head},
        "features": in_sequence | {"classifier": head},
    }


# Names of projections and classifier; others occur in every combination.
_TORCHVISION = {"torchvision": ("downsample", "fc")}
_KUANGLIU = {"kuangliu": ("shortcut", "linear")}
_DC = {"dc": ("shortcut", "classifier")}
_AKAMASTER = {"akamaster": ("shortcut", "linear")}
_CHENYAOFO = {"chenyaofo": ("downsample", "fc")}
_MIXED = {"mixed": ("downsample", "linear"), "mixed_fc": ("shortcut", "fc")}


def _block_names(sizes: Iterable[int], convolutions: int) -> dict[str, str]:
    """Names of a ResNet's stem, and of the convolutions in all its blocks.

    Args:
      sizes: Number of blocks of every stage.
      convolutions: Number of convolutions of a block, each with a batch norm.
    """
    return {"conv1": "conv1", "bn1": "bn1"} | {
        f"layer{stage}_{i}/{kind}{layer}": f"layer{stage}.{i}.{kind}{layer}"
        for stage, size in enumerate(sizes, start=1)
        for i in range(size)
        for layer in range(1, convolutions + 1)
        for kind in ("conv", "bn")
    }


def _residual_tables(
    names: dict[str, str],
    projected: Iterable[int],
    head: str,
    layouts: dict[str, tuple[str, str]],
) -> dict[str, Table]:
    """The tables of a ResNet, whose projections and classifier have several names.

    Args:
      names: Names of all other modules.
      projected: Stages whose first block has a projection.
      head: Path of the classifier.
      layouts: Names of projections and classifier.
    """
    tables = {}
    for layout, (shortcut, torch_head) in layouts.items():
        shortcuts = {
            f"layer{stage}_0/downsample_{layer}": f"layer{stage}.0.{shortcut}.{n}"
            for stage in projected
            for n, layer in enumerate(("conv", "bn"))
        }
        tables[layout] = _table(names | shortcuts | {head: torch_head})
    return tables


@torch_tables.register
def _resnet(model: ResNet) -> dict[str, Table]:
    names = _block_names(model.stage_sizes, 3 if model.bottleneck else 2)
    projected = range(1 if model.bottleneck else 2, 5)
    layouts = _TORCHVISION | _KUANGLIU | _DC | _MIXED
    return _residual_tables(names, projected, "fc", layouts)


@torch_tables.register
def _cifar_resnet(model: CifarResNet) -> dict[str, Table]:
    names = _block_names(3 * [model.blocks], 2)
    projected = [2, 3] if model.shortcut == "projection" else []
    layouts = _AKAMASTER | _CHENYAOFO | _MIXED
    return _residual_tables(names, projected, "linear", layouts)


@torch_tables.register
def _wide_resnet(model: WideResNet) -> dict[str, Table]:
    names = {"conv1": "conv1"}
    for stage in range(1, 4):
        for i in range(model.blocks):
            for layer in ("bn1", "conv1", "bn2", "conv2"):
                names[f"block{stage}_{i}/{layer}"] = f"block{stage}.layer.{i}.{layer}"
        if stage > 1 or model.widen > 1:
            shortcut = f"block{stage}.layer.0.convShortcut"
            names[f"block{stage}_0/shortcut"] = shortcut
    return {"xternalz": _table(names | {"bn1": "bn1", "fc": "fc"})}


@torch_tables.register
def _vgg(model: VGG) -> dict[str, Table]:
    table: Table = {}
    index = position = 0
    for size in vgg.CONVOLUTIONS[model.depth]:
        for _ in range(size):
            table[f"conv{index}"] = TorchModule(f"features.{position}")
            if model.batch_norm:
                table[f"bn{index}"] = TorchModule(f"features.{position + 1}")
            index += 1
            position += 3 if model.batch_norm else 2  # with the activation
        position += 1  # pool
    hidden, side = vgg.HEADS[model.head]
    if not hidden:
        return {"kuangliu": table | {"fc2": TorchModule("classifier")}}
    table["fc0"] = TorchModule("classifier.0", (vgg.CHANNELS[-1], side, side))
    table["fc1"] = TorchModule("classifier.3")
    table["fc2"] = TorchModule("classifier.6")
    return {"torchvision": table}


@torch_tables.register
def _vision_transformer(model: VisionTransformer) -> dict[str, Table]:
    names = {"patch_embed": "patch_embed.proj"}
    for i in range(model.depth):
        for layer in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"):
            names[f"block{i}/{layer.split('.')[-1]}"] = f"blocks.{i}.{layer}"
    return {"timm": _table(names | {"norm": "norm", "head": "head"})}


@torch_tables.register
def _mobilenet_v2(model: MobileNetV2) -> dict[str, Table]:
    names = {"stem_conv": "features.0.0", "stem_bn": "features.0.1"}
    expansions = [stage[0] for stage in mobilenet.STAGES for _ in range(stage[2])]
    for i, expansion in enumerate(expansions):
        block, torch_block = f"block{i}", f"features.{i + 1}.conv"
        position = 0
        if expansion != 1:
            names[f"{block}/expand_conv"] = f"{torch_block}.0.0"
            names[f"{block}/expand_bn"] = f"{torch_block}.0.1"
            position = 1
        names[f"{block}/depthwise_conv"] = f"{torch_block}.{position}.0"
        names[f"{block}/depthwise_bn"] = f"{torch_block}.{position}.1"
        names[f"{block}/project_conv"] = f"{torch_block}.{position + 1}"
        names[f"{block}/project_bn"] = f"{torch_block}.{position + 2}"
    head = f"features.{len(expansions) + 1}"
    names |= {"head_conv": f"{head}.0", "head_bn": f"{head}.1"}
    return {"torchvision": _table(names | {"classifier": "classifier.1"})}


@torch_tables.register
def _efficientnet_b0(model: EfficientNetB0) -> dict[str, Table]:
    names = {"stem_conv": "features.0.0", "stem_bn": "features.0.1"}
    for stage, (expansion, _, _, _, blocks) in enumerate(efficientnet.STAGES):
        for i in range(blocks):
            block, torch_block = f"stage{stage}_{i}", f"features.{stage + 1}.{i}.block"
            layers = ["depthwise", "squeeze", "project"]
            if expansion != 1:
                layers.insert(0, "expand")
            for position, layer in enumerate(layers):
                if layer == "squeeze":
                    names[f"{block}/squeeze"] = f"{torch_block}.{position}.fc1"
                    names[f"{block}/excite"] = f"{torch_block}.{position}.fc2"
                else:
                    names[f"{block}/{layer}_conv"] = f"{torch_block}.{position}.0"
                    names[f"{block}/{layer}_bn"] = f"{torch_block}.{position}.1"
    head = f"features.{len(efficientnet.STAGES) + 1}"
    names |= {"head_conv": f"{head}.0", "head_bn": f"{head}.1"}
    return {"torchvision": _table(names | {"classifier": "classifier.1"})}


def _table(names: dict[str, str]) -> Table:
    return {path: TorchModule(name) for path, name in names.items()}
