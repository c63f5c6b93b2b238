"""Published distilled datasets, each in its own format, as `DistilledDataset`.

To add a format here, write a module with `LOOKS_LIKE`, `matches` and `read` and list it
in `READERS`. A reader of your own is a function, named in place of a format as
"package.module:function":

    def read(request: Request) -> DistilledDataset:
        path, info = request.path, request.info()
        return arrays.pixel_dataset(request, info, images, labels, soft_labels)

It reads what lies at `request.path`, and `request.info()` is the real dataset. It
raises `InputError` for what is malformed. That every class has an image, and as many as
were asked for, is checked afterwards.
"""

import itertools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from gift_jax import registry
from gift_jax.data import info as info_lib
from gift_jax.distilled.dataset import DistilledDataset
from gift_jax.distilled.readers import (
    folders,
    frepo,
    native,
    npz,
    parquet,
    rcig,
    rfad,
    torch_arrays,
)
from gift_jax.distilled.readers.request import Request, TrainImagesNeededError
from gift_jax.runtime.errors import InputError

__all__ = [
    "READERS",
    "Reader",
    "Request",
    "TrainImagesNeededError",
    "files_beside",
    "guess_source",
    "read_distilled",
]


class Reader(Protocol):
    """What a format's module has.

    It may have `OPTIONS`, the names of its options, and `files_beside`, a function of a
    file that gives the other files that are read with it, whether they exist or not.
    """

    @property
    def LOOKS_LIKE(self) -> str:
        """One line on what the format consists of."""

    def matches(self, path: pathlib.Path) -> bool:
        """Whether what lies at a path has this format; reads little of it."""

    def read(self, request: Request) -> DistilledDataset:
        """Reads a dataset. Raises InputError for what is malformed."""


# Former names of formats.
_OLD_NAMES = {"gift": "torch", "datm": "torch"}

READERS: dict[str, Reader] = {
    "gift_jax": native,
    "torch": torch_arrays,
    "folders": folders,
    "rfad": rfad,
    "frepo": frepo,
    "rcig": rcig,
    "parquet": parquet,
    "npz": npz,
}


def read_distilled(
    path: str | os.PathLike,
    source: str | None = None,
    *,
    dataset: str | info_lib.DatasetInfo | None = None,
    ipc: int | None = None,
    train_images: np.ndarray | Callable[[], np.ndarray] | None = None,
    max_bytes: int | None = None,
    class_names: Sequence[str] = (),
) -> DistilledDataset:
    """Reads a distilled dataset, whoever published it.

    Values come back as pixels: normalisation is undone, which is checked by their
    range. ZCA-whitened images stay as they are and carry their `Whitening`, which the
    test images must pass too.

    Args:
      path: File or directory, or the id of a Hugging Face dataset.
      source: A name in `READERS`, maybe with options ("torch-experiment=0",
        "torch-factor=2"), or "package.module:attribute" of a function of a `Request`
        that returns a `DistilledDataset`; by default the one format that matches what
        lies there.
      dataset: The real dataset, by any name that `info.dataset_info` knows, or the
        `DatasetInfo` of another one. Needed where neither files nor path say it.
      ipc: Images per class. Of class folders, the images of the lowest ids are kept, or
        the first in natural order where names have no ids. SRe2L and its successors
        make one id after the other, so that these are the dataset of that IPC. Other
        formats must hold exactly as many images of a class.
      train_images: The real train images as (N, H, W, C) uint8, or a function that
        loads them: needed for whitened images, on which alone their whitening can be
        fitted (DATM, RFAD, FRePo, RCIG).
      max_bytes: Bytes that the files may unpack to; by default a multiple of their
        size: what a damaged or hostile file announces is not allocated.
      class_names: Names of the real classes in order, for folders with these names.

    Returns:
      The dataset; see `metadata.hard_labels` for where its hard labels come from.

    Raises:
      FileNotFoundError: there is nothing at the path.
      ImportError: a format needs a package that is not installed; says which.
      InputError: what lies there fits no format, is malformed, holds another number of
        images of a class than `ipc`, or announces more than it may unpack to; the
        message names the file, what was found and what was expected.

    >>> import tempfile
    >>> from gift_jax.data import DatasetInfo, Normalization
    >>> images, labels = np.zeros((20, 8, 8, 1), np.uint8), np.arange(20) % 10
    >>> info = DatasetInfo("mine", 10, 8, 1, Normalization(mean=(0.3,), std=(0.4,)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/mine.npz", images=images, labels=labels)
    ...     read_distilled(f"{folder}/mine.npz", dataset=info)
    DistilledDataset(unknown of mine: 20 images of shape (8, 8, 1), 10 classes, IPC 2)
    """
    path = pathlib.Path(path).expanduser()
    if source is None:
        source = guess_source(path)
    elif not path.exists() and not (source == "parquet" and parquet.is_hub_id(path)):
        raise FileNotFoundError(f"{path} does not exist")
    read, options = find_reader(source)
    request = Request(
        path, dataset, ipc, train_images, max_bytes, tuple(class_names), options
    )
    call = "it is given a Request"
    registry.check_call(f"the reader {source}", read, call, request)
    try:
        result = read(request)
        if not isinstance(result, DistilledDataset):
            raise InputError(
                f"it gave a {type(result).__name__}, expected a DistilledDataset"
            )
        _require_all_classes(result)
        _require_ipc(result, ipc)
    except TrainImagesNeededError as error:
        raise TrainImagesNeededError(f"{path}: {error}", error.dataset) from error
    except InputError as error:
        raise InputError(f"{path}, read as {source!r}: {error}") from error
    return result


def find_reader(
    source: str,
) -> tuple[Callable[[Request], DistilledDataset], dict[str, str]]:
    """The function that reads a format, and the options in the format's name.

    Raises:
      InputError: there is no such format or option.
    """
    if registry.is_own(source):
        outside: Any = registry.find("distilled.source", source, READERS)
        return outside, {}
    name, options = registry.split_options(source)
    name = _OLD_NAMES.get(name, name)
    reader = registry.find("distilled.source", name, READERS)
    known = getattr(reader, "OPTIONS", ())
    for option in options:
        if option not in known:
            raise registry.unknown_name(
                f"option of the format {name}", option, known or ["none"]
            )
    return reader.read, options


def files_beside(path: pathlib.Path) -> list[pathlib.Path]:
    """The other files that are read with one, such as its labels; sorted."""
    if not path.is_file():
        return []
    found = {
        file
        for reader in READERS.values()
        if hasattr(reader, "files_beside")
        for file in reader.files_beside(path)
    }
    return sorted(file for file in found if file.is_file() and file != path)


def guess_source(path: pathlib.Path) -> str:
    """The name of the one format that what lies at a path has.

    Raises:
      FileNotFoundError: there is nothing at the path.
      InputError: what lies there has no known format, or several.
    """
    found = [name for name, reader in READERS.items() if reader.matches(path)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"{path} can be read as {' and '.join(map(repr, found))}: say which by "
            f"source={found[0]!r} (--source, or --config.distilled.source)"
        )
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    formats = "\n".join(f"  {name:9}{READERS[name].LOOKS_LIKE}" for name in READERS)
    raise InputError(
        f"{path} is no distilled dataset of a known format.\nFound: {_contents(path)}\n"
        "Known formats, which source= can also force (--source, or "
        f"--config.distilled.source):\n{formats}"
    )


def _contents(path: pathlib.Path) -> str:
    if path.is_file():
        return f"a file of {path.stat().st_size:,} bytes"
    if not path.is_dir():
        return "no file, nor a directory"
    names = sorted(entry.name for entry in path.iterdir())
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"a directory with {', '.join(names[:8]) or 'nothing'}{more}"


def _require_all_classes(dataset: DistilledDataset) -> None:
    present = set(np.unique(dataset.labels).tolist())
    num_classes = dataset.metadata.num_classes
    if len(present) < num_classes:
        missing = (str(label) for label in range(num_classes) if label not in present)
        raise InputError(
            f"no image of class {', '.join(itertools.islice(missing, 5))}"
            f"{' and others' if num_classes > len(present) + 5 else ''}: found "
            f"{len(present)} of the {num_classes} classes of {dataset.metadata.dataset}"
        )


def _require_ipc(dataset: DistilledDataset, ipc: int | None) -> None:
    if ipc is not None and dataset.ipc != ipc:
        raise InputError(
            f"it holds {dataset.ipc} images of a class, but ipc={ipc} was asked for "
            f"(--config.distilled.ipc={dataset.ipc} takes all)"
        )
