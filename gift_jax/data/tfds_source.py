"""TFDS image classification sets, read without TensorFlow and without a network."""

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from gift_jax.data import fingerprint, sources
from gift_jax.runtime.errors import InputError, pip_install

_READ_AT_ONCE = 1024
# Labels are stored beside the images, so all images are read for them: 1.4 s on a core
# for the 50,000 of CIFAR-10, but 140 GB for ImageNet-1k.
_QUICK = 100_000
_WNID = re.compile(r"n\d{8}")


class Tfds:
    """A TFDS image classification set that was prepared as array_record.

    ImageNet's classes are put in the order of their sorted WordNet ids, which is
    that of torchvision's weights; `imagenet_resized` is stored in another order.

    Args:
      name: "NAME", "NAME/CONFIG" or "NAME:VERSION".
      data_dir: Where TFDS keeps its datasets; by default $TFDS_DATA_DIR, or
        else ~/tensorflow_datasets.

    Raises:
      FileNotFoundError: the dataset is not there. No network is used.
      InputError: it is damaged, in another format or holds no images with labels.
    """

    def __init__(self, name: str, data_dir: str | os.PathLike | None = None) -> None:
        import tensorflow_datasets as tfds

        self._name = name
        directory = tfds_directory(data_dir)
        try:
            self._builder = tfds.core.read_only_builder.builder_from_files(
                name, data_dir=directory
            )
        except tfds.core.DatasetNotFoundError as error:
            raise FileNotFoundError(_not_prepared(name, directory)) from error
        except Exception as error:  # TFDS raises anything for damaged files
            raise InputError(
                f"TFDS dataset {name!r} in {directory} is damaged: {error}"
            ) from error
        _check_format(name, self._builder.info)
        self._image_key, self._label_key = _feature_keys(name, self._builder.info)
        feature = self._builder.info.features[self._label_key]
        self.num_classes = feature.num_classes
        self._class_order = _class_order(feature.names)
        self.classes = [feature.names[i] for i in np.argsort(self._class_order)]

    def split(self, name: str) -> sources.Source:
        """See `sources.Collection`; slices such as "train[:90%]" are splits too."""
        import tensorflow_datasets as tfds

        try:
            source = self._builder.as_data_source(
                name, decoders={self._image_key: tfds.decode.SkipDecoding()}
            )
        except ValueError as error:
            raise InputError(
                f"cannot open the split {name!r} of TFDS dataset {self._name!r} "
                f"({error}); splits: {', '.join(self._builder.info.splits)}"
            ) from error
        files = self._builder.info.splits[name].file_instructions
        return _TfdsSource(
            source, self._image_key, self._label_key, self._class_order, files
        )


@dataclasses.dataclass(frozen=True, eq=False)
class _TfdsSource:
    examples: Any  # a TFDS data source that leaves images encoded
    image_key: str
    label_key: str
    class_order: np.ndarray
    files: Sequence[Any]  # shards, with the records that are taken of each

    def __len__(self) -> int:
        return len(self.examples)

    def labels(self, indices: Sequence[int]) -> np.ndarray:
        stored = np.empty(len(indices), np.int64)
        for start in range(0, len(indices), _READ_AT_ONCE):
            part = indices[start : start + _READ_AT_ONCE]
            stored[start : start + len(part)] = self._read(part, self.label_key)
        # A hidden label, as in the test split of imagenet2012, is stored as -1.
        return np.where(stored < 0, stored, self.class_order[stored])

    def records(self, indices: Sequence[int]) -> Sequence[sources.Record]:
        return self._read(indices, self.image_key)

    def _read(self, indices: Sequence[int], key: str) -> list[Any]:
        try:
            examples = self.examples.__getitems__([int(index) for index in indices])
            values = [example[key] for example in examples]
            if any(value is None for value in values):
                raise ValueError(f"a record without {key}")
        except Exception as error:  # array_record raises anything for damaged files
            raise OSError(
                f"TFDS dataset {self.examples.dataset_info.full_name} is damaged or "
                f"incomplete: {error}"
            ) from error
        return values

    @property
    def labels_are_quick(self) -> bool:
        return len(self) <= _QUICK

    @property
    def is_in_memory(self) -> bool:
        return False

    @functools.cached_property
    def fingerprint(self) -> str:
        return fingerprint.of(
            self.examples.dataset_info.full_name,
            fingerprint.of_files([pathlib.Path(f.filename) for f in self.files]),
            [(f.skip, f.take, f.examples_in_shard) for f in self.files],
            self.class_order,
        )


def tfds_directory(data_dir: str | os.PathLike | None) -> str:
    """Where TFDS datasets are looked for: `data_dir`, or else the default."""
    if data_dir is None:
        # TFDS reads the variable only once, when it is imported.
        data_dir = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return os.path.expanduser(data_dir)


def _not_prepared(name: str, directory: str) -> str:
    nearest = pathlib.Path(directory, re.split("[/:]", name)[0])
    if not nearest.is_dir():
        nearest = nearest.parent
    found = sources.subfolders(nearest) if nearest.is_dir() else []
    return (
        f"TFDS dataset {name!r} is not prepared in {directory} ({nearest} holds "
        f"{', '.join(found) or 'nothing'}). Give the directory it is in as data_dir "
        "or $TFDS_DATA_DIR, or prepare it once, with a network:\n"
        f"  {pip_install('prepare')}\n"
        f"  {prepare_command(name, directory)}"
    )


def prepare_command(name: str, directory: str) -> str:
    """The shell command that prepares a TFDS dataset in a directory."""
    return f"python -m gift_jax.data.prepare tfds:{name} --data_dir={directory}"


def _check_format(name: str, info: Any) -> None:
    formats = {file_format.value for file_format in info.available_file_formats()}
    if "array_record" not in formats:
        raise InputError(
            f"{info.data_dir} is stored as {', '.join(sorted(formats))}, which cannot "
            "be read without TensorFlow; gift_jax reads array_record. Prepare the "
            "dataset again in another directory:\n"
            f"  {prepare_command(name, 'OTHER_DIRECTORY')}"
        )


def _feature_keys(name: str, info: Any) -> tuple[str, str]:
    import tensorflow_datasets as tfds

    kinds = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    keys = info.supervised_keys or tuple(kinds)
    features = dict(info.features)
    if len(keys) != 2 or not all(
        isinstance(features.get(key), kind)
        for key, kind in zip(keys, kinds.values(), strict=True)
    ):
        raise InputError(
            f"TFDS dataset {name!r} is no image classification set: expected an Image "
            f"and a ClassLabel, found {features} with supervised keys {keys}"
        )
    return keys


def _class_order(names: Sequence[str]) -> np.ndarray:
    """For each class as it is stored, its index in the order that is used here."""
    if not all(_WNID.fullmatch(class_name) for class_name in names):
        return np.arange(len(names))
    return np.argsort(np.argsort(names))
