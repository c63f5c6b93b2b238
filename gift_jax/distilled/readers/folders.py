"""Class folders of images, whoever named them.

    RDED                         syn_data/00003/class00003_id00007.jpg
    SRe2L, CDA, G-VBSM, LPLD     new003/class003_id007.jpg (or .png)
    Minimax diffusion            n02086240/7.png
    D4M                          3/3-image70.png

The class of a folder is its number, of any number of digits, or else given by its name.
Only file names that match `_NAMINGS` hold the index of an image: numbers in D4M's are
those of two loops, joined. All of these projects turn floats into 8 bits by truncation,
half a grey level darker on average.
"""

import logging
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from gift_jax.data import info as info_lib
from gift_jax.data import sources
from gift_jax.distilled.dataset import DistilledDataset
from gift_jax.distilled.readers import arrays, images
from gift_jax.distilled.readers.request import Request
from gift_jax.runtime.errors import InputError

LOOKS_LIKE = (
    "a directory of class folders, by number (00003/, new003/, 3/), WordNet id or name "
    "(also inside syn_data/), each with images"
)
_NUMBERED = re.compile(r"(?:new)?([0-9]+)")
_WNID = re.compile(r"n[0-9]{8}")
# Names with an id, by which images are ordered: RDED's and SRe2L's, and Minimax's.
_NAMINGS = (re.compile(r"class[0-9]+_id([0-9]+)"), re.compile(r"([0-9]+)"))
_SPLITS = {"train", "val", "test", "validation"}
_SHOWN = 5

_logger = logging.getLogger(__name__)


def matches(path: pathlib.Path) -> bool:
    """Whether the path is a directory of class folders with images, not of splits."""
    root = _root(path)
    names = sources.subfolders(root) if root.is_dir() else []
    are_splits = _SPLITS.issuperset(names)  # `train` is also a class of CIFAR-100
    return not are_splits and any(_has_images(root / name) for name in names)


def _has_images(folder: pathlib.Path) -> bool:
    return any(sources.is_image_name(file) for file in folder.iterdir())


def read(request: Request) -> DistilledDataset:
    """Reads all images, or IPC of each class; see `read_distilled`."""
    info = request.info()
    class_names = request.class_names or info_lib.CLASS_NAMES.get(info.name, ())
    folders = _class_folders(_root(request.path), info, class_names)
    files = [_ordered(sources.image_files(folder)) for folder in folders]
    if request.ipc is not None:
        _require_enough(files, folders, request.ipc)
        if len(files[0]) > request.ipc:
            _logger.info(
                "%s: %d of %d images a class, %s to %s of the first one",
                *(request.path, request.ipc, len(files[0])),
                *(files[0][0].name, files[0][request.ipc - 1].name),
            )
        files = [of_class[: request.ipc] for of_class in files]
    _require_equal_counts([len(of_class) for of_class in files], folders)
    paths = [file for of_class in files for file in of_class]
    labels = np.repeat(np.arange(len(files)), len(files[0]))
    pixels = images.stack(
        [(path, path) for path in paths], info.channels, max_bytes=request.max_bytes
    )
    return arrays.pixel_dataset(request, info, pixels, labels)


def _root(path: pathlib.Path) -> pathlib.Path:
    inner = path / "syn_data"
    return inner if inner.is_dir() else path


def _class_folders(
    root: pathlib.Path, info: info_lib.DatasetInfo, class_names: Sequence[str]
) -> list[pathlib.Path]:
    """The folder of each class, in the order of the real dataset."""
    names = sources.subfolders(root) if root.is_dir() else []
    if class_names and set(names) == set(class_names):
        return [root / name for name in class_names]
    numbered = {name: _NUMBERED.fullmatch(name) for name in names}
    if names and all(numbered.values()):
        by_class: dict[int, pathlib.Path] = {}
        for name, match in numbered.items():
            label = int(match[1]) if match else 0
            if label in by_class:
                raise InputError(
                    f"{by_class[label]} and {root / name} are both class {label}"
                )
            by_class[label] = root / name
        _require_classes(set(by_class), set(range(info.num_classes)), info)
        return [by_class[label] for label in range(info.num_classes)]
    if class_names:
        _require_classes(set(names), set(class_names), info)
    if len(names) != info.num_classes:
        raise InputError(
            f"{root} has {len(names)} class folders ({', '.join(names[:_SHOWN])} ...), "
            f"expected {info.num_classes} for {info.name}"
        )
    if info.name in info_lib.DATASETS and not all(map(_WNID.fullmatch, names)):
        raise InputError(
            f"{root} has the class folders {', '.join(names[:_SHOWN])} ..., of which "
            f"{info.name} does not say which class they are: give the real dataset's "
            "names in order as class_names, or rename them to 0, 1, ..."
        )
    return [root / name for name in names]


def _require_classes(found: set, expected: set, info: info_lib.DatasetInfo) -> None:
    if found != expected:
        missing, unknown = sorted(expected - found), sorted(found - expected)
        raise InputError(
            f"{len(found)} class folders, expected {len(expected)} for {info.name}: "
            f"classes {missing[:_SHOWN]} are missing, {unknown[:_SHOWN]} are unknown"
        )


def _ordered(files: list[pathlib.Path]) -> list[pathlib.Path]:
    """Files by the ids in their names, or in natural order where there are none.

    Raises:
      InputError: two files have the same id.
    """
    for naming in _NAMINGS:
        matches = [naming.fullmatch(file.stem) for file in files]
        ids = [int(match[1]) for match in matches if match]
        if len(ids) < len(files):
            continue
        by_id = dict(zip(ids, files, strict=True))
        if len(by_id) < len(files):
            twice = next(f for i, f in zip(ids, files, strict=True) if by_id[i] != f)
            raise InputError(f"{twice} and another file have the same id")
        return [by_id[index] for index in sorted(by_id)]
    return files


def _require_enough(
    files: list[list[pathlib.Path]], folders: list[pathlib.Path], ipc: int
) -> None:
    for of_class, folder in zip(files, folders, strict=True):
        if len(of_class) < ipc:
            raise InputError(
                f"{folder} holds {len(of_class)} images, expected at least {ipc} for "
                f"this IPC (--config.distilled.ipc={ipc}, in Python ipc={ipc})"
            )


def _require_equal_counts(counts: list[int], folders: list[pathlib.Path]) -> None:
    fewest = counts.index(min(counts))
    if not counts[fewest]:
        raise InputError(f"{folders[fewest]} holds no images")
    if counts[fewest] < max(counts):
        raise InputError(
            f"{folders[fewest]} holds {counts[fewest]} images, other class folders "
            f"hold {max(counts)}: unpack the data again, or keep "
            "the same number of each class (--config.distilled.ipc, in Python ipc=)"
        )
