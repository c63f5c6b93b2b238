"""Class folders of images, as RDED, SRe2L, CDA, LPLD and G-VBSM write them.

    RDED                      syn_data/00003/class00003_id00007.jpg
    SRe2L and its successors  new003/class003_id007.jpg (or .png)

The number of a folder is the class; its digits may be of any number. All of these
projects turn floats into 8 bits by truncation, half a grey level darker on average.
"""

import pathlib
import re

import numpy as np

from gift_jax.data import info as info_lib
from gift_jax.distilled.dataset import DistilledDataset
from gift_jax.distilled.readers import arrays, images
from gift_jax.distilled.readers.request import Request
from gift_jax.runtime.errors import InputError

LOOKS_LIKE = (
    "directories 00000/, 00001/ ... or new000/, new001/ ... (also "
    "inside syn_data/), each with class00000_id00000.jpg or .png"
)
_FOLDER = re.compile(r"(?:new)?(\d+)")
_FILE = re.compile(r"(?:class\d+_id)?(\d+)\.(?:jpg|jpeg|png)", re.IGNORECASE)
_SHOWN = 5


def matches(path: pathlib.Path) -> bool:
    """Whether the path is a directory with numbered folders of images."""
    return any(
        _FILE.fullmatch(file.name)
        for folder in _class_folders(_root(path)).values()
        for file in folder.iterdir()
    )


def read(request: Request) -> DistilledDataset:
    """Reads all images, or those with ids 0 to ipc - 1; see `read_distilled`."""
    info = request.info()
    folders = _class_folders(_root(request.path))
    _require_classes(set(folders), info)
    files = {label: _image_files(folders[label]) for label in sorted(folders)}
    if request.ipc is not None:
        files = {
            label: _first(files[label], request.ipc, folders[label]) for label in files
        }
    _require_equal_counts(files, folders)
    paths = [file for by_id in files.values() for _, file in sorted(by_id.items())]
    labels = np.repeat(list(files), [len(by_id) for by_id in files.values()])
    pixels = images.stack(
        [(path, path) for path in paths], info.channels, max_bytes=request.max_bytes
    )
    return arrays.pixel_dataset(request, info, pixels, labels)


def _root(path: pathlib.Path) -> pathlib.Path:
    inner = path / "syn_data"
    return inner if inner.is_dir() else path


def _class_folders(root: pathlib.Path) -> dict[int, pathlib.Path]:
    """From class to folder.

    Raises:
      InputError: two folders of the same number.
    """
    folders: dict[int, pathlib.Path] = {}
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        match = _FOLDER.fullmatch(folder.name)
        if match is None or not folder.is_dir():
            continue
        label = int(match[1])
        if label in folders:
            raise InputError(f"{folders[label]} and {folder} are both class {label}")
        folders[label] = folder
    return folders


def _require_classes(found: set[int], info: info_lib.DatasetInfo) -> None:
    expected = set(range(info.num_classes))
    if found != expected:
        missing, unknown = sorted(expected - found), sorted(found - expected)
        raise InputError(
            f"{len(found)} class folders, expected {info.num_classes} for {info.name}: "
            f"classes {missing[:_SHOWN]} are missing, {unknown[:_SHOWN]} are unknown"
        )


def _image_files(folder: pathlib.Path) -> dict[int, pathlib.Path]:
    """From the id of an image to its file."""
    files: dict[int, pathlib.Path] = {}
    for file in sorted(folder.iterdir()):
        if file.name.startswith("."):
            continue
        match = _FILE.fullmatch(file.name)
        if match is None or not file.is_file():
            raise InputError(
                f"{file} is not an image of a distilled dataset; expected names like "
                "class00000_id00000.jpg or .png"
            )
        if int(match[1]) in files:
            raise InputError(f"{files[int(match[1])]} and {file} have the same id")
        files[int(match[1])] = file
    return files


def _first(
    files: dict[int, pathlib.Path], ipc: int, folder: pathlib.Path
) -> dict[int, pathlib.Path]:
    missing = [index for index in range(ipc) if index not in files]
    if missing:
        raise InputError(
            f"{folder} holds {len(files)} images and lacks the ids "
            f"{missing[:_SHOWN]}, expected 0 to {ipc - 1} for IPC {ipc} "
            f"(--config.distilled.ipc={ipc}, in Python ipc={ipc})"
        )
    return {index: files[index] for index in range(ipc)}


def _require_equal_counts(
    files: dict[int, dict[int, pathlib.Path]], folders: dict[int, pathlib.Path]
) -> None:
    counts = {label: len(by_id) for label, by_id in files.items()}
    fewest = min(counts, key=counts.__getitem__)
    if counts[fewest] < max(counts.values()):
        raise InputError(
            f"{folders[fewest]} holds {counts[fewest]} images, other class folders "
            f"hold {max(counts.values())}: unpack the data again, or keep "
            "the same number of each class (--config.distilled.ipc, in Python ipc=)"
        )
    if not counts[fewest]:
        raise InputError(f"{folders[fewest]} holds no images")
