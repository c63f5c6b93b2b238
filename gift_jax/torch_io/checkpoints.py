"""The tensors anywhere in a PyTorch checkpoint, or of torchvision's weights."""

import collections
import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from gift_jax.runtime.errors import InputError, MissingPackageError, pip_install

# Counter of torch.nn.BatchNorm2d that neither evaluation nor training reads here.
IGNORED_SUFFIX = "num_batches_tracked"
# torchvision's first weights of a network, which papers report: the teachers of RDED
# and GIFT on ImageNet-1k.
TORCHVISION_WEIGHTS = "IMAGENET1K_V1"
# Parts of names that torch.nn.DataParallel and torch.compile add, wherever they wrap.
_WRAPPING_PARTS = {"module", "_orig_mod"}
# First parts of names that training adds to a state dict: of AveragedModel (SWA, EMA)
# and of losses with tensors of their own.
_BESIDE = ("n_averaged", "criterion", "loss")
_DEEPEST = 8
_MOST_PARTS = 32


class Place(NamedTuple):
    """Where a checkpoint may hold weights.

    Attributes:
      keys: Keys of the dicts around the weights, joined by "/".
      prefix: What the names of the weights begin with.
    """

    keys: str
    prefix: str

    def __str__(self) -> str:
        return " ".join(part for part in (self.keys, self.prefix) if part) or "the top"


class Weights(NamedTuple):
    """What a checkpoint has of a network.

    Attributes:
      place: Where the weights are.
      tensors: float32 arrays by the names that were looked for.
      unused: Names of tensors beside them that are none of the network's.
    """

    place: Place
    tensors: dict[str, np.ndarray]
    unused: list[str]


class Tensors:
    """All tensors of a checkpoint, under whatever keys and prefixes they are.

    Args:
      checkpoint: A state dict, or dicts and lists that hold some; anything but tensors
          in them is ignored.
      origin: Where it is from, for error messages.

    Raises:
      InputError: It is no dict, or holds no tensors.
    """

    def __init__(self, checkpoint: Any, origin: str) -> None:
        if not isinstance(checkpoint, Mapping):
            is_tensor = isinstance(checkpoint, np.ndarray)
            kind = "tensor" if is_tensor else type(checkpoint).__name__
            raise InputError(
                f"{origin} holds a {kind}, but a checkpoint is a dict of tensors by "
                "name: torch.save(network.state_dict(), path)."
            )
        self.origin = origin
        self._tensors: dict[tuple[str, str], Any] = {}
        self._places: dict[str, list[Place]] = {}
        for keys, name, tensor in _walk(checkpoint, (), set()):
            self._tensors.setdefault((keys, name), tensor)
        if not self._tensors:
            entries = short_list(map(str, checkpoint)) or "(none)"
            raise InputError(
                f"{origin} is no state dict, and holds none: no tensors by name are "
                f"found in its entries {entries}."
            )
        for keys, name in self._tensors:
            parts = name.split(".")
            for start in range(len(parts)):
                prefix = "".join(f"{part}." for part in parts[:start])
                place = Place(keys, prefix)
                self._places.setdefault(name[len(prefix) :], []).append(place)

    @property
    def names(self) -> list[str]:
        """Names of all tensors, without the keys around them."""
        return [name for _, name in self._tensors]

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of the first tensor of a name, behind any prefix; None without one."""
        places = self._places.get(name)
        if not places:
            return None
        return tuple(self._tensors[places[0].keys, places[0].prefix + name].shape)

    def places(self, names: Iterable[str]) -> list[tuple[Place, int]]:
        """Where tensors of these names are, and how many; the most first.

        Of equals, those that are no moving average come first, in the file's order.
        """
        counts: collections.Counter[Place] = collections.Counter()
        for name in names:
            counts.update(dict.fromkeys(self._places.get(name, ())).keys())
        return sorted(
            counts.items(), key=lambda item: (-item[1], "ema" in str(item[0]).lower())
        )

    def weights(self, names: Iterable[str]) -> Weights:
        """The tensors of these names, as far as they are found.

        They are those behind one prefix; one that is missing there, and found in one
        other place only, is taken from that: a classifier beside a "backbone.".
        """
        names = list(names)
        best = [place for place, _ in self.places(names)] or [Place("", "")]
        found = {}
        for name in names:
            places = self._places.get(name, [])
            place = best[0] if best[0] in places else None
            if place is None and len(places) == 1:
                (place,) = places
            if place is not None:
                found[name] = (place.keys, place.prefix + name)
        used = set(found.values())
        unused = [
            name
            for keys, name in self._tensors
            if keys == best[0].keys
            and name.startswith(best[0].prefix)
            and (keys, name) not in used
            and not name.removeprefix(best[0].prefix).startswith(_BESIDE)
        ]
        tensors = {name: _to_numpy(self._tensors[at]) for name, at in found.items()}
        return Weights(best[0], tensors, unused)


def plain_name(name: str) -> str:
    """A name without what torch.nn.DataParallel and torch.compile add.

    >>> plain_name("features.module.0.weight")
    'features.0.weight'
    """
    return ".".join(part for part in name.split(".") if part not in _WRAPPING_PARTS)


def short_list(names: Iterable[str], shown: int = 5) -> str:
    """Names joined by commas, and how many more there are.

    >>> short_list(["a", "b", "c"], shown=2)
    'a, b and 1 more'
    """
    names = list(names)
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


def _walk(
    value: Any, keys: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[str, str, Any]]:
    """(keys around it, name, tensor) of every tensor that has a name."""
    if id(value) in seen or len(keys) > _DEEPEST:
        return
    seen.add(id(value))
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, entry in items:
        if isinstance(entry, Mapping | list | tuple):
            yield from _walk(entry, (*keys, str(key)), seen)
        elif isinstance(key, str) and {"shape", "dtype"} <= set(dir(entry)):
            name = plain_name(key)
            if name.count(".") < _MOST_PARTS and not name.endswith(IGNORED_SUFFIX):
                yield "/".join(keys), name, entry


def _to_numpy(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a PyTorch tensor, maybe bfloat16 or on a GPU
        value = value.detach().cpu().float().numpy()
    return np.asarray(value, np.float32)


def torchvision_state_dict(name: str, weights: str) -> Mapping[str, Any]:
    """The state dict that torchvision publishes for one of its networks.

    Args:
      name: Name of the network in torchvision.
      weights: Name of the weights, for example "IMAGENET1K_V1".

    Raises:
      ImportError: PyTorch or torchvision cannot be imported.
      ConnectionError: The weights are not in PyTorch's cache and cannot be fetched.
      InputError: torchvision has no such network or weights.
    """
    models = torchvision_models(name)
    if name not in models.list_models():
        raise InputError(f"torchvision has no network {name!r}, so no weights for it.")
    available = models.get_model_weights(name)
    if weights not in available.__members__:
        raise InputError(
            f"torchvision has no weights {weights!r} for {name}; it has "
            f"{', '.join(available.__members__)}."
        )
    entry = available[weights]
    try:
        return entry.get_state_dict(check_hash=True)
    except OSError as error:
        raise ConnectionError(
            f"Could not fetch the weights of {name} from {entry.url}: {error}. "
            "Download that file elsewhere and give its path as teacher.checkpoint."
        ) from error


def torchvision_models(name: str) -> Any:
    """The module `torchvision.models`.

    Args:
      name: Name of the network whose weights are wanted, for the message.

    Raises:
      MissingPackageError: PyTorch or torchvision cannot be imported.
    """
    try:
        return importlib.import_module("torchvision.models")
    except (ImportError, RuntimeError) as error:  # the latter if for another PyTorch
        raise MissingPackageError(
            f"The ImageNet weights of {name} need PyTorch and torchvision, which "
            f"cannot be imported ({error}): {pip_install('torch')}. Or download their "
            "file, which is read without (of resnet18: "
            "https://download.pytorch.org/models/resnet18-f37072fd.pth), and give its "
            "path as teacher.checkpoint"
        ) from error
