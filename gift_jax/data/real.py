"""Real datasets by name: what `load_dataset` opens.

Opening reads no image of a dataset that `info.DATASETS` lists.
"""

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Callable, Mapping

import numpy as np

from gift_jax.data import archive, fingerprint, preprocess, sources, tfds_source
from gift_jax.data import info as info_lib
from gift_jax.data.image_split import ImageSplit, open_image
from gift_jax.runtime import paths
from gift_jax.runtime.errors import InputError

# Images looked at to learn the size and channels of a dataset without an entry.
_SAMPLES = 32
# Images held at a time while channel statistics are measured.
_CHUNK = 512
# Images of the train split on which the softmax temperature is fitted.
_CALIBRATION_IMAGES = 5000
_WORDNET_ID = re.compile(r"n\d{8}")
_OF_IMAGENET = ("imagenet", "imagewoof", "tiny_imagenet")


@dataclasses.dataclass(frozen=True, eq=False)
class RealDataset:
    """A real dataset: what it is, and its splits.

    Attributes:
      info: Sizes, channel statistics and names of the splits.
      train: Images for teachers and distillation.
      test: Images that accuracies are reported on.
      validation: Images held out of the train split, to choose learning rates on; None
        where none are held out.
      class_names: Names of the classes in order, if they are known.
      with_held_out: The whole train split, held-out images included: published sets
        were distilled from it, and their whitening is fitted on it. None where
        `validation` is.
    """

    info: info_lib.DatasetInfo
    train: ImageSplit
    test: ImageSplit
    validation: ImageSplit | None = None
    class_names: tuple[str, ...] = ()
    with_held_out: ImageSplit | None = None

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits for the images of all splits and for `info`.

        See `data.fingerprint` for what it notices. The name of the dataset and its
        place do not count.
        """
        splits = (self.train, self.test, self.validation)
        info = dataclasses.replace(self.info, name="")
        return fingerprint.of(*(s.fingerprint for s in splits if s is not None), info)

    @functools.cached_property
    def calibration(self) -> ImageSplit:
        """Train images to fit a softmax temperature on.

        The held-out images, or else at most 5,000 of the train split, always the same:
        students are trained on the distilled images only.
        """
        if self.validation is not None:
            return self.validation
        order = np.random.default_rng(0).permutation(len(self.train))
        return self.train.subset(np.sort(order[:_CALIBRATION_IMAGES]))

    def of_classes(self, classes: tuple[int, ...]) -> "RealDataset":
        """The images of some classes; a class's place in `classes` is its new label."""

        def restricted(split: ImageSplit | None) -> ImageSplit | None:
            return None if split is None else split.of_classes(classes)

        return RealDataset(
            info=dataclasses.replace(self.info, num_classes=len(classes)),
            train=self.train.of_classes(classes),
            test=self.test.of_classes(classes),
            validation=restricted(self.validation),
            class_names=tuple(self.class_names[c] for c in classes)
            if self.class_names
            else (),
            with_held_out=restricted(self.with_held_out),
        )


def load_dataset(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    image_size: int | None = None,
    normalization: preprocess.Normalization | None = None,
    train_split: str | None = None,
    test_split: str | None = None,
    validation_images: int = 0,
    measure: Callable[[ImageSplit], preprocess.Normalization] | None = None,
) -> RealDataset:
    """Opens a real dataset.

    Args:
      name: A name in `info.DATASETS`; "tfds:NAME" for any TFDS image
        classification set, whose size and channels are learned from some images and
        whose channel statistics are measured on the train split; or, likewise,
        "folder:PATH" for class folders in PATH/train and PATH/val and "npz:PATH" for
        an `archive.Archive`.
      data_dir: Where TFDS keeps its datasets; by default $TFDS_DATA_DIR, or else
        ~/tensorflow_datasets. For "tiny_imagenet" the unpacked archive. For any name
        in `info.DATASETS` it may be an npz of its splits, or hold class folders in
        train/ and val/, too.
      image_size: Side to bring images to. Needed where images come in many
        sizes, without effect where they have it already, and an error for a
        named dataset of another fixed size.
      normalization: Channel statistics in place of the known or measured ones. For a
        dataset without an entry their number, one or three, sets the channels that
        the images are converted to.
      train_split: Split to use for training; for folders, a folder.
      test_split: Split to measure accuracies on.
      validation_images: How many images to hold out of the train split, always the
        same ones.
      measure: Measures the channel statistics of a train split where they are unknown;
        None stands for `channel_statistics`, which reads every image.

    Returns:
      The dataset; none of its images need have been read yet.

    Raises:
      FileNotFoundError: the dataset is not there; says how to prepare it.
      InputError: an unknown name, a split that does not exist or is empty, or
        an image size that does not fit.

    >>> digits = load_dataset("digits")
    >>> len(digits.train), len(digits.test), digits.info.image_shape
    (1437, 360, (8, 8, 1))
    >>> digits.test.images(np.arange(2)).dtype
    dtype('uint8')
    """
    if data_dir:
        paths.local(data_dir, "dataset.data_dir")
    kind, _, location = name.partition(":")
    known = None
    collection: sources.Collection
    if location and kind == "tfds":
        collection = tfds_source.Tfds(location, data_dir)
    elif location and kind == "folder":
        collection = sources.Folders(location, train_split or "train")
    elif location and kind == "npz":
        collection = archive.Archive(pathlib.Path(location).expanduser())
    else:
        known = info_lib.dataset_info(name)
        collection = _open_known(known, data_dir)
    if train_split is None:
        train_split = known.train_split if known else "train"
    if test_split is None and isinstance(collection, sources.Folders):
        test_split = "val"
    elif test_split is None:
        test_split = known.test_split if known else "test"
    if train_split == test_split:
        raise InputError(
            f"{name}: the train and the test split are both {train_split!r}; "
            "accuracies must be measured on images that were not trained on"
        )
    whole, test = collection.split(train_split), collection.split(test_split)
    train, validation = _hold_out(whole, validation_images, f"{name}/{train_split}")
    if known:
        info = _resized(known, image_size)
    else:
        splits = {train_split: train, test_split: test}
        info = _measured_info(name, splits, collection.num_classes, image_size)
    info = dataclasses.replace(
        info,
        train_split=train_split,
        test_split=test_split,
        validation_images=validation_images,
    )
    if normalization is None and not known:
        measure = measure or channel_statistics
        coloured = dataclasses.replace(info, channels=3)
        normalization = measure(ImageSplit(train, coloured, train_split))
        if info.channels == 1:
            normalization = _of_one_channel(normalization)
    if normalization is not None:
        info = dataclasses.replace(info, normalization=normalization)
    if not known:
        info = dataclasses.replace(info, channels=len(info.normalization.mean))
    return RealDataset(
        info=info,
        train=ImageSplit(train, info, train_split),
        test=ImageSplit(test, info, test_split),
        validation=ImageSplit(validation, info, "validation") if validation else None,
        class_names=tuple(collection.classes),
        with_held_out=ImageSplit(whole, info, train_split) if validation else None,
    )


def _hold_out(
    train: sources.Source, count: int, name: str
) -> tuple[sources.Source, sources.Source | None]:
    """Holds `count` images, drawn once and for all, out of a train split."""
    if not count:
        return train, None
    if count >= len(train):
        raise InputError(
            f"cannot hold {count} images out of the {len(train)} of {name}: set "
            "tuning.validation_images to fewer"
        )
    order = np.random.default_rng(0).permutation(len(train))
    held_out, kept = np.sort(order[:count]), np.sort(order[count:])
    return sources.Subset(train, kept), sources.Subset(train, held_out)


def _open_known(
    info: info_lib.DatasetInfo, data_dir: str | os.PathLike | None
) -> sources.Collection:
    collection: sources.Collection
    if str(data_dir).endswith(".npz"):
        collection = archive.Archive(pathlib.Path(str(data_dir)).expanduser())
    elif info.name == "digits":
        collection = sources.Digits()
    elif data_dir and (pathlib.Path(data_dir).expanduser() / "train").is_dir():
        collection = sources.Folders(data_dir)
        _check_class_folders(info, collection.classes, data_dir)
    elif info.tfds_name:
        collection = tfds_source.Tfds(info.tfds_name, data_dir)
    elif data_dir is None:
        raise InputError(
            f"{info.name} is read from folders: give the unpacked archive, which "
            "holds train/ and val/, as data_dir"
        )
    else:  # raises, and says what is missing
        collection = sources.Folders(data_dir)
    if collection.num_classes != info.num_classes:
        raise InputError(
            f"{info.name} has {info.num_classes} classes, but what is stored has "
            f"{collection.num_classes}"
        )
    return collection


def _check_class_folders(
    info: info_lib.DatasetInfo, found: list[str], data_dir: str | os.PathLike
) -> None:
    """Refuses folder names that order the classes unlike published sets."""
    known = info_lib.CLASS_NAMES.get(info.name)
    if all(name.isdigit() for name in found) or tuple(found) == known:
        return
    expected = "numbers"
    if known is not None:
        expected = f"{', '.join(known[:3])}, ..., or numbers"
    elif info.name.startswith(_OF_IMAGENET):
        if all(map(_WORDNET_ID.fullmatch, found)):
            return
        expected = "WordNet ids, as n01440764, or numbers"
    raise InputError(
        f"class folders in {data_dir}/train are named {', '.join(found[:3])}, ..., but "
        f"those of {info.name} are {expected}: the classes would be in another order; "
        f"rename them, or set dataset.name=folder:{data_dir}"
    )


def _resized(
    info: info_lib.DatasetInfo, image_size: int | None
) -> info_lib.DatasetInfo:
    if image_size is None or image_size == info.image_size:
        return info
    if not info.resize:
        raise InputError(
            f"images of {info.name} have {info.image_size}x{info.image_size} pixels, "
            f"but image_size is {image_size}: leave it out"
        )
    return dataclasses.replace(info, image_size=image_size)


def _measured_info(
    name: str,
    splits: Mapping[str, sources.Source],
    num_classes: int,
    image_size: int | None,
) -> info_lib.DatasetInfo:
    """Learns from some images what their size is and whether they are coloured."""
    headers = []
    for split, source in splits.items():
        evenly = np.linspace(0, len(source) - 1, min(_SAMPLES, len(source))).astype(int)
        records = source.records(evenly.tolist())
        for index, record in zip(evenly, records, strict=True):
            with open_image(record, f"image {index} of {name}/{split}") as image:
                headers.append((image.size, image.mode))
    sizes = {size for size, _ in headers}
    width, height = next(iter(sizes))
    is_fixed = len(sizes) == 1 and width == height
    if image_size is None and not is_fixed:
        raise InputError(
            f"images of {name} are not all square and of one size: give image_size, "
            "the side to bring them to"
        )
    return info_lib.DatasetInfo(
        name=name,
        num_classes=num_classes,
        image_size=image_size or width,
        channels=1 if all(mode in ("1", "L") for _, mode in headers) else 3,
        normalization=info_lib.IMAGENET,  # until it is measured or given
        resize=not is_fixed or image_size not in (None, width),
    )


def _of_one_channel(found: preprocess.Normalization) -> preprocess.Normalization:
    """Statistics of one channel where all images prove to be grey, else of three."""
    is_grey = len(set(found.mean)) == len(set(found.std)) == 1
    return preprocess.Normalization(found.mean[:1], found.std[:1]) if is_grey else found


def channel_statistics(
    split: ImageSplit, on_images: Callable[[int], object] = lambda count: None
) -> preprocess.Normalization:
    """Mean and standard deviation of each channel over all pixels of a split.

    Args:
      split: Some images, all of which are read.
      on_images: Called with the number of images read since the last call.

    Returns:
      Statistics of pixels in [0, 1] after the validation transform; population
      deviation.
    """
    total = np.zeros(split.images([0]).shape[-1])
    total_squares = np.zeros_like(total)
    for start in range(0, len(split), _CHUNK):
        stop = min(start + _CHUNK, len(split))
        pixels = split.images(range(start, stop)) / 255
        total += pixels.mean(axis=(1, 2)).sum(axis=0)
        total_squares += (pixels**2).mean(axis=(1, 2)).sum(axis=0)
        on_images(stop - start)
    mean = total / len(split)
    std = np.sqrt(total_squares / len(split) - mean**2)
    return preprocess.Normalization(tuple(mean.tolist()), tuple(std.tolist()))
