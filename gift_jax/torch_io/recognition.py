"""Which network the tensors of a checkpoint belong to."""

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn

from gift_jax import registry
from gift_jax.models import MODELS, create_model, model_options
from gift_jax.models.cifar_resnet import SHORTCUTS, CifarResNet
from gift_jax.models.convnet import NORMS, ConvNet
from gift_jax.models.mobilenet import STAGES, MobileNetV2
from gift_jax.models.resnet import ResNet
from gift_jax.models.vgg import HEADS, VGG
from gift_jax.models.wide_resnet import WideResNet
from gift_jax.runtime.errors import InputError
from gift_jax.torch_io.checkpoints import Tensors, Weights
from gift_jax.torch_io.names import Table, torch_tables
from gift_jax.torch_io.slots import Slot, differences, find_slots

_log = logging.getLogger(__name__)

#: The name of a network that is to be recognised.
AUTO = "auto"
_SHOWN = 3
# Networks for images up to this side reduce them less in their first layers. Strides
# leave no trace in tensors.
_SMALL = 64

Options = dict[str, Any]


class Fit(NamedTuple):
    """A network beside a checkpoint.

    Attributes:
      slots: The places of its tensors, by their PyTorch names.
      weights: What the checkpoint has of them.
      head: Name of the classifier's weights.
      num_classes: Rows of the classifier; None if it is not there.
      differences: What is missing, unused or of another shape; "" for nothing.
    """

    slots: dict[str, Slot]
    weights: Weights
    head: str
    num_classes: int | None
    differences: str


def fit(module: nn.Module, tensors: Tensors, image_size: int) -> Fit:
    """Looks for the weights of a network under each of its tables of names."""
    tables = list(torch_tables(module).values())
    table = max(tables, key=lambda table: _places(table, tensors))
    stem, *_, head = _weight_names(table)
    found = tensors.weights([stem, head]).tensors
    channels = found[stem].shape[1] if stem in found and found[stem].ndim == 4 else 3
    slots = find_slots(module, table, image_size, channels)
    weights = tensors.weights(slots)
    differing = differences(
        expected={name: slot.torch_shape for name, slot in slots.items()},
        found={name: tensor.shape for name, tensor in weights.tensors.items()}
        | dict.fromkeys(weights.unused, ()),
    )
    classes = len(weights.tensors[head]) if head in weights.tensors else None
    return Fit(slots, weights, head, classes, differing)


def recognise(
    tensors: Tensors, origin: str, *, image_size: int | None = None
) -> tuple[str, Options]:
    """The network that tensors belong to, and the options that they reveal.

    Args:
      tensors: Tensors of the checkpoint.
      origin: Where they are from, for messages.
      image_size: Height and width of the images; without it, some usual ones are tried.

    Raises:
      InputError: They fit no network here; the message names the nearest.
    """
    sizes = [32, 64, 224, 96, 128, 256, 28] if image_size is None else [image_size]
    for size in sizes:
        for name, options in _by_likeness(tensors, size):
            classes = _classes(name, options, tensors, size)
            if classes is None:
                continue
            module = create_model(name, num_classes=classes, image_size=size, **options)
            if not fit(module, tensors, size).differences:
                label = registry.label(name, options, model_options(name))
                _log.info("%s is recognised as %s, %d classes", origin, label, classes)
                return name, options
    raise InputError(
        f"{origin} holds the tensors of no network that is known here; by names it is "
        f"{nearest(tensors, image_size=sizes[0])}. Any other can be a teacher as "
        "torch:package.module:attribute, see docs/teachers.md."
    )


def nearest(tensors: Tensors, *, image_size: int) -> str:
    """The networks whose names fit best, with how many layers fit, for messages."""
    near = []
    for name, options in _candidates(tensors, image_size):
        tables = _tables(name, image_size, **options)
        found, of = max((_places(table, tensors), len(table)) for table in tables)
        label = registry.label(name, options, model_options(name))
        near.append((found / max(of, len(_modules(tensors))), found, of, label))
    near.sort(reverse=True)
    shown = [f"{label} ({found} of {of} layers)" for _, found, of, label in near]
    return f"nearest to {', '.join(shown[:_SHOWN])}"


def _by_likeness(tensors: Tensors, size: int) -> Iterator[tuple[str, Options]]:
    """Networks all of whose layers are there; those of most layers first."""
    whole = []
    for name, options in _candidates(tensors, size):
        tables = _tables(name, size, **options)
        if any(_places(table, tensors) == len(table) for table in tables):
            whole.append((len(tables[0]), name, options))
    for _, name, options in sorted(whole, key=lambda found: -found[0]):
        yield name, options


def _candidates(tensors: Tensors, size: int) -> list[tuple[str, Options]]:
    """Every network with the options that the tensors may have; likely ones first."""
    found = []
    for name, builder in MODELS.items():
        guess = _GUESSES.get(builder.func, lambda _: [{}])
        known = model_options(name)
        for guessed in guess(tensors.shape):
            options = {key: guessed[key] for key in guessed if key in known}
            try:
                _tables(name, size, **options)
            except InputError:  # not for images of this size
                continue
            if (name, options) not in found:
                found.append((name, options))
    # A sort keeps the order of equals.
    modified = "_modified" if size <= _SMALL else "_unmodified"
    return sorted(found, key=lambda candidate: not candidate[0].endswith(modified))


@functools.lru_cache(maxsize=512)
def _tables(name: str, size: int, **options: Any) -> Sequence[Table]:
    module = create_model(name, num_classes=1, image_size=size, **options)
    return tuple(torch_tables(module).values())


def _weight_names(table: Table) -> list[str]:
    return [f"{torch_module.name}.weight" for torch_module in table.values()]


def _places(table: Table, tensors: Tensors) -> int:
    """The most layers of a table that are found behind one prefix."""
    places = tensors.places(_weight_names(table))
    return places[0][1] if places else 0


def _modules(tensors: Tensors) -> set[str]:
    return {name.rpartition(".")[0] for name in tensors.names}


def _classes(name: str, options: Options, tensors: Tensors, size: int) -> int | None:
    tables = _tables(name, size, **options)
    table = max(tables, key=lambda table: _places(table, tensors))
    shape = tensors.shape(_weight_names(table)[-1])
    return shape[0] if shape else None


Shapes = Callable[[str], tuple[int, ...] | None]


def _conv(shape: Shapes) -> list[Options]:
    stem = shape("layers.conv.0.weight") or shape("features.0.weight") or (128,)
    return [{"width": stem[0], "norm": norm} for norm in NORMS]


def _wide(shape: Shapes) -> list[Options]:
    first = shape("block1.layer.0.conv1.weight")
    blocks = 1
    while shape(f"block1.layer.{blocks}.conv1.weight"):
        blocks += 1
    widen = first[0] // 16 if first else 10
    return [{"depth": 6 * blocks + 4, "widen": max(widen, 1)}]


def _mobile(shape: Shapes) -> list[Options]:
    # The last block's channels, which rounding to multiples of 8 changes least.
    last = shape(f"features.{sum(stage[2] for stage in STAGES)}.conv.2.weight")
    return [{"width_mult": round(last[0] / STAGES[-1][1], 3) if last else 1.0}]


_GUESSES: dict[Any, Callable[[Shapes], list[Options]]] = {
    ConvNet: _conv,
    CifarResNet: lambda _: [{"shortcut": shortcut} for shortcut in SHORTCUTS],
    ResNet: lambda _: [{"norm": norm} for norm in ("batch", "instance")],
    WideResNet: _wide,
    MobileNetV2: _mobile,
    VGG: lambda _: [{"head": head} for head in HEADS],
}
