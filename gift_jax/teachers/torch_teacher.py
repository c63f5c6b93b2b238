"""Teachers that PyTorch runs: a user's module, timm's or torchvision's.

    torch:my_models:ResNet20     called as it stands, or with `num_classes`; its weights
                                 are in teacher.checkpoint
    timm:resnet18.a1_in1k        with timm's weights, or those of teacher.checkpoint
    torchvision:resnet50         likewise

Batches stay where they are: PyTorch reads the memory of a JAX or NumPy array.
"""

import dataclasses
import difflib
import functools
import importlib
import inspect
import logging
from typing import Any

import jax
import numpy as np

from gift_jax import registry
from gift_jax.data.info import DatasetInfo
from gift_jax.data.preprocess import Normalization
from gift_jax.runtime.errors import InputError, MissingPackageError, pip_install
from gift_jax.teachers import base
from gift_jax.teachers.callable_teacher import checked_logits
from gift_jax.torch_io import checkpoints, torch_import
from gift_jax.torch_io.slots import differences

_log = logging.getLogger(__name__)

SOURCES = ("torch", "timm", "torchvision")
_NEAREST = 3


def is_torch(name: str) -> bool:
    """Whether a name is that of a teacher that PyTorch runs.

    >>> is_torch("timm:resnet18.a1_in1k"), is_torch("my_teacher:build")
    (True, False)
    """
    source, colon, _ = name.partition(":")
    return bool(colon) and source in SOURCES


def check_importable(name: str) -> None:
    """Checks that a teacher's package and code can be imported, but not its weights.

    Args:
      name: "torch:...", "timm:..." or "torchvision:...".

    Raises:
      InputError: the user's module cannot be found.
      MissingPackageError: PyTorch, timm or torchvision cannot be imported.
    """
    source, _, rest = name.partition(":")
    _import(source, name)
    if source == "torch":
        _own_builder(rest)


@dataclasses.dataclass(frozen=True, eq=False)
class TorchTeacher:
    """A PyTorch module as a teacher, on a GPU where PyTorch has one.

    Attributes:
      name: Name in rows of results and messages.
      network: A `torch.nn.Module` from normalised NCHW images to logits; it is put
        into evaluation mode.
      preprocess: Preprocessing of pixels to its inputs.
      num_classes: Number of classes that it must tell apart.
    """

    name: str
    network: Any
    preprocess: Normalization
    num_classes: int

    @classmethod
    def load(
        cls,
        name: str,
        info: DatasetInfo,
        *,
        checkpoint: str = "",
        preprocess: Normalization | None = None,
    ) -> "TorchTeacher":
        """The teacher of a name, see the top of this module.

        Args:
          name: "torch:...", "timm:..." or "torchvision:...".
          info: The real dataset.
          checkpoint: File of its weights; "" for those that it comes with.
          preprocess: Channel statistics; None means those that timm and torchvision
            state for their weights, else the dataset's.

        Raises:
          FileNotFoundError: there is no such checkpoint.
          InputError: there is no such module, or its weights do not fit it.
          MissingPackageError: PyTorch, timm or torchvision is not installed.
          ConnectionError: weights cannot be fetched.
        """
        source, _, rest = name.partition(":")
        make = {"torch": _own, "timm": _timm, "torchvision": _torchvision}[source]
        network, stated = make(rest, info.num_classes, bool(checkpoint))
        if checkpoint:
            _load_weights(network, checkpoint, name)
        preprocess = preprocess or stated or info.normalization
        _log.info("teacher %s is run by PyTorch, fed by %s", name, preprocess)
        in_file_names = name.replace("/", "_")
        return cls(in_file_names, network, preprocess, info.num_classes)

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits for weights, user code and channel statistics."""
        modules = {type(module).__module__ for module in self.network.modules()}
        own = {m for m in modules if m.partition(".")[0] not in SOURCES}
        return base.fingerprint(
            {
                "network": repr(self.network),
                "code": base.code_fingerprints(own),
                "preprocess": dataclasses.asdict(self.preprocess),
                "variables": {
                    name: tensor.detach().cpu().float().numpy()
                    for name, tensor in self.network.state_dict().items()
                },
            }
        )

    def logits(self, images: base.Array) -> np.ndarray:
        """(B, num_classes) float32 for (B, H, W, C) pixels, see `base.Teacher`.

        Raises:
          TeacherError: what the module returned is of another shape, or not finite.
        """
        torch = _import("torch", self.name)
        network, mean, std = self._ready
        with torch.inference_mode():
            pixels = _shared(torch, images).to(mean.device)
            # A view: PyTorch calls this order of memory channels_last.
            inputs = pixels.permute(0, 3, 1, 2).sub(mean).div_(std)
            returned = network(inputs)
        is_tensor = isinstance(returned, torch.Tensor)
        answer = returned.float().cpu().numpy() if is_tensor else returned
        return checked_logits(self.name, answer, len(images), self.num_classes)

    @functools.cached_property
    def _ready(self) -> tuple[Any, Any, Any]:
        torch = _import("torch", self.name)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        mean, std = (
            torch.tensor(values, device=device).reshape(1, -1, 1, 1)
            for values in (self.preprocess.mean, self.preprocess.std)
        )
        return self.network.to(device).eval(), mean, std


def _shared(torch: Any, images: base.Array) -> Any:
    """A tensor over the array's memory, which nothing writes to."""
    if isinstance(images, jax.Array) and images.dtype == np.float32:
        platform = next(iter(images.devices())).platform
        if platform == "cpu" or (platform == "gpu" and torch.cuda.is_available()):
            return torch.from_dlpack(images)
    array = np.ascontiguousarray(images, np.float32)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _import(package: str, name: str) -> Any:
    try:
        return importlib.import_module(package)
    except (ImportError, RuntimeError) as error:  # the latter: for another PyTorch
        extra = "timm" if package == "timm" else "torch"
        raise MissingPackageError(
            f"the teacher {name} is run by {package}, which cannot be imported "
            f"({error}): {pip_install(extra)}"
        ) from error


def _own_builder(name: str) -> Any:
    if not registry.is_own(name):
        raise InputError(
            f"the teacher torch:{name} names no module, expected "
            "torch:package.module:attribute"
        )
    return registry.find("teacher", name, {})


def _own(
    name: str, num_classes: int, has_weights: bool
) -> tuple[Any, Normalization | None]:
    del has_weights  # without a checkpoint, the user's code has loaded some
    torch = _import("torch", f"torch:{name}")
    build = _own_builder(name)
    given = {}
    if "num_classes" in inspect.signature(build).parameters:
        given["num_classes"] = num_classes
    what = f"the teacher torch:{name}"
    registry.check_call(what, build, "it is called without arguments", **given)
    network = build(**given)
    if not isinstance(network, torch.nn.Module):
        raise base.TeacherError(
            f"the teacher torch:{name} gives a {type(network).__name__}, expected a "
            "torch.nn.Module"
        )
    return network, None


def _timm(
    name: str, num_classes: int, has_weights: bool
) -> tuple[Any, Normalization | None]:
    timm = _import("timm", f"timm:{name}")
    known = timm.list_pretrained() + timm.list_models()
    if not name.startswith("hf") and name not in known:
        raise _unknown("timm", name, known)
    if has_weights:
        return timm.create_model(name, num_classes=num_classes), None
    network = _fetched(f"timm:{name}", lambda: timm.create_model(name, pretrained=True))
    stated = network.pretrained_cfg
    return network, Normalization(stated["mean"], stated["std"])


def _torchvision(
    name: str, num_classes: int, has_weights: bool
) -> tuple[Any, Normalization | None]:
    models = _import("torchvision", f"torchvision:{name}").models
    if name not in models.list_models():
        raise _unknown("torchvision", name, models.list_models())
    if has_weights:
        return models.get_model(name, num_classes=num_classes), None
    weights = checkpoints.TORCHVISION_WEIGHTS
    state = checkpoints.torchvision_state_dict(name, weights)
    network = models.get_model(name)
    network.load_state_dict(state)
    # torchvision's builders set it with these weights: GoogLeNet and Inception v3 were
    # trained on inputs in [-1, 1], and are given ImageNet's statistics.
    if hasattr(network, "transform_input"):
        network.transform_input = True
    stated = models.get_model_weights(name)[weights].transforms()
    return network, Normalization(tuple(stated.mean), tuple(stated.std))


def _fetched(name: str, make: Any) -> Any:
    try:
        return make()
    except Exception as error:  # each client raises its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConnectionError(
            f"the weights of the teacher {name} cannot be fetched ({reason[:200]}): "
            "download them elsewhere, and give their path as teacher.checkpoint"
        ) from error


def _unknown(source: str, name: str, known: list[str]) -> InputError:
    near = difflib.get_close_matches(name, known, n=_NEAREST, cutoff=0.3)
    return InputError(f"{source} has no network {name!r}; nearest: {', '.join(near)}")


def _load_weights(network: Any, checkpoint: str, name: str) -> None:
    """Puts the weights of a file into a module, wherever in the file they are."""
    torch = _import("torch", name)
    plain = {
        key: checkpoints.plain_name(key)
        for key in network.state_dict()
        if not key.endswith(checkpoints.IGNORED_SUFFIX)
    }
    weights = torch_import.open_checkpoint(checkpoint).weights(plain.values())
    differing = differences(
        expected={plain[key]: tuple(network.state_dict()[key].shape) for key in plain},
        found={key: value.shape for key, value in weights.tensors.items()}
        | dict.fromkeys(weights.unused, ()),
    )
    if differing:
        raise InputError(f"{checkpoint} does not fit the teacher {name}; {differing}.")
    network.load_state_dict(
        {key: torch.from_numpy(weights.tensors[plain[key]].copy()) for key in plain},
        strict=False,  # without the counters of batches
    )
