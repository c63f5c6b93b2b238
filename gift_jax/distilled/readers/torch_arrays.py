"""PyTorch files of images and labels, in the layouts of those who publish them.

    named  a dict of `images`, `labels`, maybe `soft_labels` and `dataset`, as in an npz
    gift   a dict of `dataset`, `data`, `label`: GIFT's evaluator, CIM
           https://github.com/LINs-lab/GIFT, `validate/evaluator_benchmark.py`
    dc     a dict whose `data` is a list of [images, labels], one an experiment: DC, DSA
           and DM, https://github.com/VICO-UoE/DatasetCondensation, `main.py`
    idc    [images, labels]: IDC, DREAM; an image may be a mosaic of factor x factor
           https://github.com/snu-mllab/Efficient-Dataset-Condensation, `condense.py`
    pair   images*.pt and labels*.pt, maybe lr*.pt: MTT, DATM and DD-Ranking
           https://github.com/NUS-HPC-AI-Lab/DD-Ranking

No file says in which space its images are: DC's family and MTT standardise them, IDC
keeps pixels, DATM whitens with kornia's ZCA where its config says so, and GIFT's dict
holds any of these. Their distribution tells (`value_space`).
"""

import dataclasses
import json
import logging
import math
import pathlib
import re
from typing import Any, NamedTuple

import jax
import numpy as np

from gift_jax.data import info as info_lib
from gift_jax.distilled import standardised
from gift_jax.distilled.dataset import DistilledDataset
from gift_jax.distilled.readers import arrays
from gift_jax.distilled.readers.request import Request
from gift_jax.runtime.errors import InputError
from gift_jax.torch_io import torch_files

LOOKS_LIKE = (
    "a PyTorch file, or a directory with one: a dict of `images`, `labels`, and if "
    "known `soft_labels`, `dataset`; of `dataset`, `data` (N, C, H, W) and `label` "
    "(GIFT); of `data`, a list of [images, labels] (DC, DSA, DM); such a list itself "
    "(IDC, DREAM); images*.pt beside labels*.pt (MTT, DATM, DD-Ranking)"
)
OPTIONS = ("experiment", "factor")
# Files to read in a directory; others, as images_5000.pt, are of an unfinished run.
_NAMES = re.compile(r"data(_best)?|res_\w+|images(\w*_best)?|\w+_images")
_ARGUMENTS = "args.txt"

_logger = logging.getLogger(__name__)


class Stored(NamedTuple):
    """What a file holds.

    Attributes:
      layout: "named", "gift", "dc", "idc" or "pair".
      images: (N, C, H, W), (N, H, W, C) or anything else.
      labels: (N,) integers, (N, classes) floats or anything else.
      dataset: Name of the dataset as stored in the file.
      soft_labels: (N, classes) floats beside labels that are classes, or anything else.
    """

    layout: str
    images: Any
    labels: Any
    dataset: Any = None
    soft_labels: Any = None


def matches(path: pathlib.Path) -> bool:
    """Whether there is a PyTorch file; does not read it."""
    return arrays.kind_of(path) == "torch" or bool(_files(path))


def files_beside(path: pathlib.Path) -> list[pathlib.Path]:
    """Labels and learning rate of a file of images, and what IDC says of mosaics."""
    return [_beside(path, "labels"), _beside(path, "lr"), path.with_name(_ARGUMENTS)]


def layout(path: pathlib.Path, content: Any) -> str | None:
    """The layout of what a file holds; None where it is no distilled dataset."""
    if isinstance(content, dict) and {"images", "labels"} <= content.keys():
        return "named"
    if isinstance(content, dict) and {"data", "label"} <= content.keys():
        return "gift"
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        return "dc"
    if isinstance(content, list | tuple) and len(content) == 2:
        is_pair = all(isinstance(part, np.ndarray) for part in content)
        return "idc" if is_pair and content[0].ndim == 4 else None
    return "pair" if _beside(path, "labels").is_file() else None


def read(request: Request) -> DistilledDataset:
    """Reads the one file, or the pair of files; see `read_distilled`."""
    path = _one_file(request)
    request = dataclasses.replace(request, path=path)  # the file's name says more
    stored = _stored(request, path, _load(request, path))
    info = request.info(stored.dataset)
    for name in ("images", "labels", "soft_labels"):
        value = getattr(stored, name)
        if value is None and name == "soft_labels":
            continue
        if not isinstance(value, np.ndarray):
            raise InputError(
                f"{path}: the {name} are a {type(value).__name__}, expected a tensor"
            )
    images = _channels_last(path, stored, info)
    labels = stored.labels
    if stored.soft_labels is not None:
        hard, _, _ = arrays.class_labels(labels)
        soft = arrays.as_floats(stored.soft_labels)
        return arrays.pixel_dataset(request, info, images, hard, soft)
    rate, parts, statistics = None, 1, None
    if stored.layout == "pair":
        rate = _learning_rate(request, _beside(path, "lr"))
        if rate is not None:  # then MTT's or DATM's, whatever the path names
            statistics = standardised.of_gift(info)
    if stored.layout == "idc":
        factor = _factor(request, path)
        images, parts = split_mosaics(images, factor), factor**2
        labels = labels.repeat(parts, axis=0)
    method = request.method("unknown" if rate is None else "datm")
    return arrays.learnt_dataset(
        request,
        info,
        images,
        labels,
        statistics=statistics,
        method=method,
        learning_rate=rate,
        parts=parts,
    )


def _files(path: pathlib.Path) -> list[pathlib.Path]:
    found = sorted(path.iterdir()) if path.is_dir() else []
    return [
        file
        for file in found
        if _NAMES.fullmatch(file.stem.lower()) and arrays.kind_of(file) == "torch"
    ]


def _one_file(request: Request) -> pathlib.Path:
    path = request.path
    if not path.is_dir():
        return path
    files = _files(path)
    if len(files) > 1 and request.ipc is not None:
        ending = f"_{request.ipc}ipc"
        files = [file for file in files if file.stem.lower().endswith(ending)] or files
    if len(files) != 1:
        raise InputError(
            f"{path} holds {', '.join(f.name for f in files) or 'no PyTorch file'} of "
            "distilled images, expected one: give the path of one file"
        )
    return files[0]


def _load(request: Request, path: pathlib.Path) -> Any:
    return torch_files.load_torch(path, max_bytes=request.max_bytes)


def _stored(request: Request, path: pathlib.Path, content: Any) -> Stored:
    match layout(path, content):
        case "named":
            names = ("images", "labels", "dataset", "soft_labels")
            return Stored("named", *map(content.get, names))
        case "gift":
            name = content.get("dataset")
            return Stored("gift", content["data"], content["label"], name)
        case "dc":
            return Stored("dc", *_experiment(request, path, content["data"]))
        case "idc":
            return Stored("idc", *content)
        case "pair":
            return Stored("pair", content, _load(request, _beside(path, "labels")))
    if isinstance(content, np.ndarray) and "images" in path.name.lower():
        raise InputError(
            f"{path} holds a tensor of shape {content.shape}, expected "
            f"{_beside(path, 'labels').name} with its labels beside it"
        )
    keys = sorted(map(str, content))[:10] if isinstance(content, dict) else "no"
    raise InputError(
        f"{path} holds a {type(content).__name__} with {keys} keys; expected a dict of "
        "`images` and `labels`, of `dataset`, `data` and `label`, one with a list "
        "`data` of [images, labels], such a list itself, or a tensor named images* "
        "beside one named labels*"
    )


def _experiment(request: Request, path: pathlib.Path, runs: list) -> tuple[Any, Any]:
    """The images and labels of one experiment, by default the last."""
    chosen = request.option("experiment")
    if len(runs) > 1 and chosen is None:
        _logger.warning(
            "%s holds %d experiments, of which the last is read; "
            "source='torch-experiment=0' reads the first, and so on",
            path,
            len(runs),
        )
    index = -1 if chosen is None else chosen
    if not -len(runs) <= index < len(runs):
        raise InputError(
            f"{path} holds {len(runs)} experiments, of which experiment={index} is none"
        )
    run = runs[index]
    if not isinstance(run, list | tuple) or len(run) != 2:
        raise InputError(f"{path}: experiment {index} is no pair of images and labels")
    return run[0], run[1]


def _beside(path: pathlib.Path, what: str) -> pathlib.Path:
    """The file of labels, or of the learning rate, that belongs to a file of images."""
    name = re.sub("images", what, path.name, count=1, flags=re.IGNORECASE)
    return path.with_name(name if name != path.name else f"{what}_of_{name}")


def _channels_last(
    path: pathlib.Path, stored: Stored, info: info_lib.DatasetInfo
) -> np.ndarray:
    images = stored.images
    if images.ndim == 4 and images.shape[1] == info.channels:
        return np.moveaxis(images, 1, -1)
    is_last = images.ndim == 4 and images.shape[-1] == info.channels
    if stored.layout == "named" and is_last:
        return images
    raise InputError(
        f"{path}: images have shape {images.shape}, expected (N, {info.channels}, H, "
        f"W) for {info.name}"
    )


def _learning_rate(request: Request, path: pathlib.Path) -> float | None:
    if not path.is_file():
        return None
    value = _load(request, path)
    if isinstance(value, int | float) or (
        isinstance(value, np.ndarray) and value.size == 1
    ):
        return float(value)
    found = getattr(value, "shape", type(value).__name__)
    raise InputError(f"{path} holds {found}, expected one number")


def _factor(request: Request, path: pathlib.Path) -> int:
    """Images along a side of a mosaic: as given, or from args.txt or the path."""
    factor = request.option("factor")
    arguments = path.with_name(_ARGUMENTS)
    named = re.search(r"(?<![a-zA-Z])factor([1-9])(?![0-9])", str(path.absolute()))
    if factor is None and arguments.is_file():
        try:
            stated = json.loads(arguments.read_text(errors="replace"))
            factor, kind = int(stated["factor"]), stated.get("decode_type", "single")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{arguments} states no factor ({error!r})") from error
        if kind != "single":
            raise InputError(
                f"{arguments} says decode_type {kind!r}; read are mosaics of one factor"
            )
    elif factor is None and named:
        factor = int(named[1])
    if factor is None:
        _logger.warning(
            "%s: taken for whole images, as no args.txt and no path states a factor; "
            "source='torch-factor=2' takes them for mosaics of 2x2",
            path,
        )
        return 1
    if not 1 <= factor <= 8:
        raise InputError(f"factor={factor}, expected 1 to 8")
    return factor


def split_mosaics(images: np.ndarray, factor: int) -> np.ndarray:
    """The parts of mosaics, each enlarged to the size of the whole.

    `decode_zoom` of IDC: the sides are padded by 0.5 to a multiple of the factor, and
    parts enlarged bilinearly without aligned corners.

    Args:
      images: (N, H, W, C) float.
      factor: Parts along a side.

    Returns:
      (N * factor**2, H, W, C) float32, the parts of an image row by row.
    """
    if factor == 1:
        return images
    num_images, height, width, channels = images.shape
    part = math.ceil(height / factor), math.ceil(width / factor)
    padding = part[0] * factor - height, part[1] * factor - width
    padded = np.pad(
        images.astype(np.float32),
        ((0, 0), (0, padding[0]), (0, padding[1]), (0, 0)),
        constant_values=0.5,
    )
    parts = padded.reshape(num_images, factor, part[0], factor, part[1], channels)
    parts = parts.transpose(0, 1, 3, 2, 4, 5).reshape(-1, *part, channels)
    shape = (len(parts), height, width, channels)
    return np.asarray(jax.image.resize(parts, shape, "bilinear", antialias=False))
