"""Says what a file or folder is: python -m gift_jax.inspect PATH.

Knows distilled datasets of every format that `read_distilled` reads, PyTorch
checkpoints such as published teachers, FKD soft labels, and what gift_jax itself
leaves in a work directory. Exits with 2 and one message where it cannot tell.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gift_jax.data import preprocess, real
from gift_jax.distilled import preview, readers
from gift_jax.distilled.dataset import DistilledDataset, as_uint8
from gift_jax.distilled.readers import arrays, frepo, torch_arrays
from gift_jax.pipeline.products import DONE_FILE, RECIPE_FILE
from gift_jax.pipeline.results import RESULTS_FILE
from gift_jax.runtime import errors
from gift_jax.runtime.errors import InputError
from gift_jax.runtime.npz import read_npz
from gift_jax.soft_labels import fkd
from gift_jax.torch_io import torch_files

_WORKDIR_PARTS = (
    *("teacher", "statistics", "experts", "distilled", "soft_labels"),
    *("tuning", "runs", RESULTS_FILE),
)
_RECORDS = (RECIPE_FILE, DONE_FILE)
_SUM_TOLERANCE = 1e-3
_LONGEST_NAME = 200
_DEEPEST = 50

Facts = Iterable[tuple[str, str]]


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m gift_jax.inspect",
        description="Says what a distilled dataset, teacher or label folder holds.",
    )
    parser.add_argument("path", type=pathlib.Path)
    parser.add_argument("--source", help="the format, if it is guessed wrong")
    parser.add_argument("--dataset", help="the real dataset, if nothing there says it")
    parser.add_argument(
        "--preview", type=pathlib.Path, metavar="OUT.png", help="write a grid of images"
    )
    parser.add_argument(
        "--max_bytes",
        type=int,
        help="how much a file may unpack to, if you trust it; by default a multiple of "
        "its size",
    )
    options = parser.parse_args(arguments)
    try:
        facts = inspect(
            options.path.expanduser(),
            options.dataset,
            options.preview and options.preview.expanduser(),
            source=options.source,
            max_bytes=options.max_bytes,
        )
    except errors.EXPECTED as error:
        print(f"error: {errors.message(error)}", file=sys.stderr)
        return 2
    names = [_printable(name)[:_LONGEST_NAME] for name, _ in facts]
    width = max(map(len, names)) + 2
    for name, (_, value) in zip(names, facts, strict=True):
        print(f"{name:<{width}}{_printable(value)}")
    return 0


def _printable(text: str) -> str:
    """The text with unprintable characters replaced, which could control a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def inspect(
    path: pathlib.Path,
    dataset: str | None = None,
    preview_path: pathlib.Path | None = None,
    *,
    source: str | None = None,
    max_bytes: int | None = None,
) -> list[tuple[str, str]]:
    """What is at a path, as names and values.

    Args:
      path: File, directory or hub id.
      dataset: Name of the real dataset, for formats that do not hold it.
      preview_path: Where to write a grid of the images as PNG.
      source: Format of a distilled dataset; by default guessed from the contents.
      max_bytes: Bytes that a file may unpack to; None means the usual multiple of its
        size.

    Raises:
      FileNotFoundError: there is nothing at the path.
      ImportError: a package is missing that reads this format.
      InputError: it is nothing known, or malformed, or `preview_path` was
        given for something without images.
    """
    other = None if source else _other_than_images(path, max_bytes)
    if other is None:
        source = source or readers.guess_source(path)
        return list(_distilled_facts(path, source, dataset, preview_path, max_bytes))
    if preview_path is not None:
        raise InputError(f"{path} holds no images to write a preview of")
    return list(other)


def _other_than_images(path: pathlib.Path, max_bytes: int | None) -> Facts | None:
    """Facts about a path that is no distilled dataset; None for one that is."""
    if (path / "epoch_0").is_dir():
        return _fkd_facts(path)
    if arrays.kind_of(path) == "torch":
        content = torch_files.load_torch(path, max_bytes=max_bytes)
        if torch_arrays.layout(path, content) is not None:
            return None
        return [("format", "PyTorch file"), *_tensor_facts(content)]
    if readers.READERS["gift_jax"].matches(path):
        return None
    if any((path / name).exists() for name in (*_WORKDIR_PARTS, *_RECORDS)):
        return _workdir_facts(path)
    return None


def _distilled_facts(
    path: pathlib.Path,
    source: str,
    dataset_name: str | None,
    preview_path: pathlib.Path | None,
    max_bytes: int | None,
) -> Facts:
    yield "format", source
    try:
        dataset = _read(path, source, dataset=dataset_name, max_bytes=max_bytes)
    except readers.TrainImagesNeededError as error:
        if preview_path is not None:
            raise
        yield "ZCA", f"whitened, and not undone: {error}"
        yield from _tensor_facts(_stored_arrays(path, max_bytes))
        return
    yield from _image_facts(dataset)
    yield from _label_facts(dataset)
    if preview_path is not None:
        preview.save_preview(dataset.pixels(), dataset.labels, preview_path)
        yield "preview", str(preview_path)


def _read(path: pathlib.Path, source: str, **options: Any) -> DistilledDataset:
    """Reads it, with the real train images where it needs them."""
    try:
        return readers.read_distilled(path, source, **options)
    except readers.TrainImagesNeededError as error:
        real_name = error.dataset
    try:
        train = real.load_dataset(real_name).train
    except (FileNotFoundError, ImportError, ValueError) as error:
        raise readers.TrainImagesNeededError(
            f"{path}: its matrix is fitted on the train images of {real_name}, which "
            f"cannot be loaded: {error}",
            real_name,
        ) from error
    options["train_images"] = train.all_images
    return readers.read_distilled(path, source, **options)


def _image_facts(dataset: DistilledDataset) -> Facts:
    metadata = dataset.metadata
    yield "dataset", f"{metadata.dataset}, {metadata.num_classes} classes"
    yield "method", metadata.method
    num_images, height, width, channels = dataset.images.shape
    yield "images", f"{num_images} of {height}x{width} pixels, {channels} channels"
    pixels = dataset.pixels()
    is_8_bit = as_uint8(pixels) is not None
    yield "pixels", _range(pixels) + (", from 8 bits" if is_8_bit else "")
    if isinstance(dataset.preprocess, preprocess.Whitening):
        yield "ZCA", f"whitened; as stored {_range(dataset.images)}"
        normalization = dataset.preprocess.normalization
    else:
        yield "ZCA", "not whitened"
        normalization = dataset.preprocess
    yield "channel mean", _numbers(normalization.mean)
    yield "channel std", _numbers(normalization.std)
    if metadata.learning_rate is not None:
        yield "learning rate", f"{metadata.learning_rate:g}, learnt"


def _label_facts(dataset: DistilledDataset) -> Facts:
    counts = np.bincount(dataset.labels, minlength=dataset.metadata.num_classes)
    fewest = "" if counts.min() == counts.max() else f" (fewest: {counts.min()})"
    yield "IPC", f"{dataset.ipc}{fewest}"
    origin = {
        "class": "the class of each image",
        "argmax": "the argmax of the soft labels",
    }
    hard_labels = dataset.metadata.hard_labels
    yield "hard labels", origin.get(hard_labels, hard_labels)
    soft_labels = dataset.soft_labels
    if soft_labels is None:
        yield "soft labels", "none"
        return
    agreement = np.mean(soft_labels.argmax(axis=1) == dataset.labels)
    yield (
        "soft labels",
        f"{_range(soft_labels)}, {_row_sums(soft_labels)}; the argmax is the hard "
        f"label of {agreement:.1%}",
    )


def _row_sums(labels: np.ndarray) -> str:
    sums = labels.sum(axis=1, dtype=np.float64)
    for total, meaning in ((1, "rows sum to 1"), (0, "rows sum to 0 (centred)")):
        if np.abs(sums - total).max() < _SUM_TOLERANCE:
            return meaning
    return f"rows sum to [{sums.min():.4g}, {sums.max():.4g}]"


def _fkd_facts(path: pathlib.Path) -> Facts:
    labels = fkd.FkdLabels(path)
    view = labels.read(0)
    yield "format", "FKD soft labels"
    yield "epochs", str(labels.views)
    yield "images", str(labels.num_images)
    yield "mix", view.mix
    yield "logits", f"{view.logits.shape[1]} classes, {_range(np.asarray(view.logits))}"


def _workdir_facts(path: pathlib.Path) -> Facts:
    yield "format", "gift_jax work directory or product"
    for entry in sorted(path.iterdir()):
        kind = "directory" if entry.is_dir() else f"{entry.stat().st_size:,} bytes"
        yield entry.name, kind
        if entry.name in _RECORDS and entry.is_file():
            yield from _record_facts(entry)
        if entry.is_dir() and entry.name in _WORKDIR_PARTS:
            for product in sorted(filter(pathlib.Path.is_dir, entry.iterdir())):
                yield from _product_facts(product)


def _product_facts(path: pathlib.Path) -> Facts:
    done = path / DONE_FILE
    is_complete = done.is_file()
    title = f"{path.parent.name}/{path.name}"
    yield title, "complete" if is_complete else f"not complete, it has no {DONE_FILE}"
    if is_complete:
        yield from _record_facts(done)


def _record_facts(path: pathlib.Path) -> Facts:
    try:
        record = json.loads(path.read_text())
        if isinstance(record, dict):
            return [(f"  {name}", json.dumps(value)) for name, value in record.items()]
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error})") from error
    raise InputError(f"{path} holds a JSON {type(record).__name__}, expected an object")


def _stored_arrays(path: pathlib.Path, max_bytes: int | None) -> Any:
    """The arrays of a file, or of the files of a directory, under their names."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
        return {file.name: _stored_arrays(file, max_bytes) for file in files}
    match arrays.kind_of(path):
        case "npz":
            return read_npz(path, max_bytes=max_bytes)
        case "torch":
            return torch_files.load_torch(path, max_bytes=max_bytes)
    return frepo.load_checkpoint(path)


def _tensor_facts(content: Any) -> Facts:
    arrays = dict(_named_arrays(content))
    for name, array in arrays.items():
        yield name, f"{array.dtype} {'x'.join(map(str, array.shape)) or 'scalar'}"
    total = sum(array.size for array in arrays.values())
    yield "total", f"{len(arrays)} arrays, {total:,} numbers"


def _named_arrays(content: Any) -> Iterable[tuple[str, np.ndarray]]:
    """The arrays in containers, each of which is visited once.

    A few bytes of a pickle can nest one container in itself, or a thousandfold.
    """
    seen: set[int] = set()
    left = [("", content, 0)]
    while left:
        name, value, depth = left.pop()
        if isinstance(value, np.ndarray):
            yield name or "content", value
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            if depth == _DEEPEST:
                raise InputError(f"containers more than {_DEEPEST} deep in one another")
            pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
            inner = [
                (f"{name}.{key}" if name else str(key), part, depth + 1)
                for key, part in pairs
            ]
            left += inner[::-1]


def _range(values: np.ndarray) -> str:
    low, high, mean = values.min(), values.max(), values.mean(dtype=np.float64)
    return f"[{low:.4g}, {high:.4g}], mean {mean:.4g}"


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


if __name__ == "__main__":
    sys.exit(main())
