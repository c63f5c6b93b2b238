"""What a reader is asked for, and what it may find out about the dataset's name."""

import dataclasses
import functools
import logging
import pathlib
import re
from collections.abc import Callable, Mapping

import numpy as np

from gift_jax.data import info as info_lib
from gift_jax.runtime.errors import InputError

_METHODS = (
    "rded", "sre2l", "cda", "gvbsm", "g-vbsm", "lpld", "edc", "cim", "datm", "rfad",
    "frepo", "rcig", "dwa", "random", "forgetting", "el2n", "aum", "ccs", "d4m", "dc",
    "dsa", "dm", "mtt", "idc", "dream", "kip", "minimax", "kmeans",
)  # fmt: skip
# How many parts of a path are looked at for a name; in the layout of GIFT,
# `syn_data/rded/cifar10_conv3/ipc10/data.pt`, the dataset is the third last.
_NAMING_PARTS = 4
_LONGEST_NAME = 100

_logger = logging.getLogger(__name__)


class TrainImagesNeededError(InputError):
    """Whitened images cannot be understood without the real train images.

    Attributes:
      dataset: Name of the real dataset.
    """

    def __init__(self, message: str, dataset: str) -> None:
        super().__init__(message)
        self.dataset = dataset


@dataclasses.dataclass(frozen=True)
class Request:
    """What `read_distilled` was called with.

    Attributes:
      path: File or directory.
      dataset: Name or `DatasetInfo` of the real dataset, if it was given.
      ipc: Images per class to keep, if not all of them.
      train_images: The real train images as (N, H, W, C) uint8, or a function that
        loads them.
      max_bytes: Bytes that it may unpack to; by default a multiple of its size.
      class_names: Class names of the real dataset in order; () where not known.
      options: Options of the format by name, as text.
    """

    path: pathlib.Path
    dataset: str | info_lib.DatasetInfo | None = None
    ipc: int | None = None
    train_images: np.ndarray | Callable[[], np.ndarray] | None = None
    max_bytes: int | None = None
    class_names: tuple[str, ...] = ()
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def option(self, name: str) -> int | None:
        """The whole number given for an option of the format; None where it was not.

        Raises:
          InputError: it is no whole number.
        """
        text = self.options.get(name)
        if text is None or re.fullmatch("-?[0-9]{1,9}", text):
            return None if text is None else int(text)
        raise InputError(f"{name}={text} of the format, expected a whole number")

    def info(self, stored_name: object = None) -> info_lib.DatasetInfo:
        """The real dataset: stored in the file, given, or named by the path.

        Args:
          stored_name: The name that is stored in the file, if there is one.

        Raises:
          InputError: the name is unknown, missing, or another one than is stored.
        """
        if stored_name is not None:
            if not isinstance(stored_name, str) or len(stored_name) > _LONGEST_NAME:
                raise InputError(
                    "`dataset` is no name of a dataset but a "
                    f"{type(stored_name).__name__}"
                )
            self.require_same_dataset(stored_name)
        if isinstance(self.dataset, info_lib.DatasetInfo):
            return self.dataset
        name = self.dataset or stored_name
        if name and ":" in name:
            raise InputError(
                f"{name} is a real dataset of your own, known by its images only: give "
                f"dataset=real.load_dataset({name!r}).info in Python, or read the set "
                "in a job, by distilled.path"
            )
        return info_lib.dataset_info(name) if name else _named_by(self.path)

    def require_same_dataset(self, stored_name: str) -> None:
        """Raises InputError where another dataset was given than is stored."""
        given = self.dataset
        if isinstance(given, info_lib.DatasetInfo):
            given = given.name
        if given is not None and _classes_of(given) != _classes_of(stored_name):
            raise InputError(
                f"the file says that it is made from {stored_name!r}, but "
                f"dataset={given!r} was given (in the job config.dataset.name): give "
                f"{stored_name!r}, or in Python nothing"
            )

    def method(self, default: str = "unknown") -> str:
        """The distillation method that the path names, or the default."""
        for part in _naming_parts(self.path):
            found = [name for name in _METHODS if _names(part, name)]
            if len(found) == 1:
                return found[0]
        return default

    def load_train_images(
        self, info: info_lib.DatasetInfo, shape: tuple[int, ...], convention: str
    ) -> np.ndarray:
        """The real train images that a whitening is fitted on.

        Args:
          info: The real dataset.
          shape: (H, W, C) of the distilled images.
          convention: Project whose whitening it is, for the message.

        Returns:
          (N, H, W, C) uint8.

        Raises:
          TrainImagesNeededError: the train images were not given.
          InputError: they have another shape.
        """
        if self.train_images is None:
            raise TrainImagesNeededError(
                f"these images are ZCA-whitened as {convention} does it, with a matrix "
                f"fitted on the train images of {info.name}. The file does not hold "
                "it, and the test images must pass it too: give the train images, as "
                f"in train_images=real.load_dataset({info.name!r}).train.all_images",
                info.name,
            )
        given = self.train_images
        images = given() if callable(given) else given
        if images.shape[1:] != shape:
            raise InputError(
                f"the train images have shape {images.shape}, expected (N, "
                f"{', '.join(map(str, shape))}) as the distilled images have"
            )
        return images


def _classes_of(name: str) -> str:
    """One name for all names and resolutions of a dataset."""
    name = info_lib.canonical_name(name)
    return "imagenet2012" if name == "imagenet2012_64" else name


@functools.cache  # so that the warning is logged once
def _named_by(path: pathlib.Path) -> info_lib.DatasetInfo:
    found: set[str] = set()
    for part in _naming_parts(path):
        found = _datasets_in(part)
        if len(found) == 1:
            _logger.warning(
                "%s: taken to be made from %s, after %r in its path; give dataset= to "
                "say otherwise",
                path,
                *found,
                part,
            )
            return info_lib.DATASETS[found.pop()]
        if found:
            break
    raise InputError(
        "the files do not say which dataset they are made from, nor does the path "
        f"(it names {', '.join(sorted(found)) or 'none'}): give dataset=, one of "
        f"{', '.join(info_lib.DATASETS)}"
    )


def _naming_parts(path: pathlib.Path) -> list[str]:
    """The last parts of a path in lower case, the last one first."""
    return [part.lower() for part in reversed(path.parts[-_NAMING_PARTS:])]


def _datasets_in(part: str) -> set[str]:
    """The datasets that a part of a path names."""
    names = {name: name for name in info_lib.DATASETS} | info_lib.ALIASES
    found = set()
    # The longest first: "imagenet-nette" is no "imagenet".
    for name in sorted(names, key=len, reverse=True):
        if _names(part, name):
            found.add(names[name])
            part = part.replace(name, "")
    return found


def _names(part: str, name: str) -> bool:
    return re.search(rf"(?<![a-z0-9]){re.escape(name)}(?![a-z0-9])", part) is not None
