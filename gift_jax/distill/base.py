"""What a distiller is: a way to make a distilled dataset from a real one."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from gift_jax.data.preprocess import Preprocess
from gift_jax.data.real import RealDataset
from gift_jax.distilled import DistilledDataset, Metadata
from gift_jax.runtime import memory
from gift_jax.runtime.errors import InputError
from gift_jax.teachers import Teacher

Constants = TypeVar("Constants", bound=tuple)

# What a distiller can need. With "teacher_gradients" it needs a teacher that can be
# differentiated: a network of this project. With "teacher_statistics" its `make` takes
# `real`: what `recovery.real_statistics` measures for every network of the teacher.
# With "experts" it takes `experts`, the trajectories of its `experts_for(data, seed)`.
NEEDS = frozenset(
    {"teacher", "teacher_gradients", "teacher_statistics", "train_images", "experts"}
)


class OnProgress(Protocol):
    """Callback for progress. What it raises ends the work."""

    def __call__(self, done: int, total: int, **metrics: float) -> None:
        """Called with the work done, all the work, and metrics to show."""


class Distiller(Protocol):
    """A frozen dataclass of its options, checked when it is made.

    A distiller may have an attribute `resumable`, True: its `make` is given a
    `directory`, a path (or None) where it may keep what it needs to resume after it was
    stopped. The directory is there again at the next attempt, and removed when the
    images are made. With an attribute `on_all_hosts`, True, all hosts call `make`, and
    share that directory; otherwise only the primary host does.

    A distiller may have a method `check(data)`, which raises InputError where it cannot
    make images of a real dataset: jobs call it before any work. It reads no image, and
    reads labels as `check_class_sizes` does.

    Attributes:
      needs: What it needs, some of `NEEDS`.
      ipc: Images per class.
    """

    needs: ClassVar[frozenset[str]]

    @property
    def ipc(self) -> int:
        """Images per class."""

    def make(
        self,
        data: RealDataset,
        *,
        teacher: Teacher | None,
        seed: int,
        on_progress: OnProgress | None = None,
    ) -> DistilledDataset:
        """Makes the images.

        Args:
          data: The real dataset.
          teacher: The teacher; None where it is not needed.
          seed: Seed of everything random.
          on_progress: Called now and then.

        Raises:
          InputError: the images cannot be made from this dataset.
        """


def make_options(distiller: Any) -> list[str]:
    """The keyword arguments that a job gives to a distiller's `make`.

    >>> from gift_jax import distill
    >>> make_options(distill.Random(ipc=1))
    ['teacher', 'seed', 'on_progress']
    """
    asked_for = {
        "real": "teacher_statistics" in distiller.needs,
        "experts": "experts" in distiller.needs,
        "directory": getattr(distiller, "resumable", False),
    }
    always = ["teacher", "seed", "on_progress"]
    return always + [name for name, asked in asked_for.items() if asked]


def check_options(distiller: Any, *, positive: Sequence[str]) -> None:
    """Raises InputError for options that are negative, not finite or of a wrong type.

    Args:
      distiller: A dataclass; only fields that are numbers by default, or in
        `positive`, are checked.
      positive: Names of fields that hold whole numbers and may not be zero.
    """
    for field in dataclasses.fields(distiller):
        value, is_positive = getattr(distiller, field.name), field.name in positive
        whole = is_positive or type(field.default) is int
        if not whole and type(field.default) is not float:
            continue
        least = 1 if is_positive else 0
        kinds = (int,) if whole else (int, float)
        if type(value) not in kinds or not least <= value < math.inf:
            kind = "whole number" if whole else "number"
            raise InputError(
                f"{type(distiller).__name__}: {field.name} is {value!r}, expected a "
                f"{kind} of at least {least}"
            )


def chosen(distiller: Any, constants: Constants) -> Constants:
    """Constants of a recipe, replaced by a distiller's options that are not zero."""
    options = {n: getattr(distiller, n, 0) for n in constants._fields}  # type: ignore[attr-defined]
    given = {name: value for name, value in options.items() if value}
    return constants._replace(**given)  # type: ignore[attr-defined]


def recipe(
    distiller: Any, data: RealDataset, seed: int, teacher: Teacher | None = None
) -> dict[str, Any]:
    """What the images depend on, in types that JSON has."""
    return {
        "method": type(distiller).__name__.lower(),
        **dataclasses.asdict(distiller),
        "seed": seed,
        "dataset": data.fingerprint,
        "teacher": teacher.fingerprint if teacher else None,
    }


def distilled_dataset(
    distiller: Any,
    data: RealDataset,
    images: Sequence[np.ndarray],
    *,
    seed: int,
    preprocess: Preprocess | None = None,
    soft_labels: np.ndarray | None = None,
    learning_rate: float | None = None,
) -> DistilledDataset:
    """The dataset of images that were made class by class.

    Args:
      distiller: The distiller that made them; its options are kept as the source.
      data: The real dataset.
      images: (ipc, S, S, C) uint8 for every class, or all in one; or float32 pixels.
      seed: Seed that they were made with.
      preprocess: See `DistilledDataset`; None stands for the real dataset's.
      soft_labels: Soft labels learnt with the images, see `DistilledDataset`.
      learning_rate: Learning rate learnt with the images.
    """
    info, method = data.info, type(distiller).__name__.lower()
    options = {**dataclasses.asdict(distiller), "seed": seed}
    settings = ", ".join(f"{name} {value}" for name, value in options.items())
    pixels = np.concatenate(images)
    return DistilledDataset(
        images=pixels if pixels.dtype == np.float32 else pixels / np.float32(255),
        labels=np.repeat(np.arange(info.num_classes), distiller.ipc),
        preprocess=preprocess or info.normalization,
        soft_labels=soft_labels,
        metadata=Metadata(
            dataset=info.name,
            num_classes=info.num_classes,
            method=method,
            source=f"{method}: {settings}, split {info.train_split}",
            learning_rate=learning_rate,
        ),
        are_pixels=True,
    )


def class_members(data: RealDataset, least: int, reason: str = "") -> list[np.ndarray]:
    """Indices of the training images of every class.

    Args:
      data: The real dataset.
      least: How many images of each class are needed.
      reason: Why so many, for the message; by default the IPC.

    Raises:
      InputError: a class has fewer.
    """
    _check_sizes(data, least, reason)
    labels, classes = data.train.labels, range(data.info.num_classes)
    return [np.flatnonzero(labels == label) for label in classes]


def check_class_sizes(data: RealDataset, least: int, reason: str = "") -> None:
    """Raises InputError as `class_members` does; skips labels that take long to read.

    Those are of TFDS sets beyond 100,000 images, such as ImageNet-1k, whose files a job
    would read in full at every start; their classes are large.
    """
    if data.train.labels_are_quick:
        _check_sizes(data, least, reason)


def check_memory(data: RealDataset, *, of_pixels: int = 1, besides: int = 0) -> None:
    """Refuses a dataset whose train images a method cannot hold at once.

    Args:
      data: The real dataset.
      of_pixels: Bytes per pixel and channel of all that is made of the train images.
      besides: Bytes of everything else that is held.

    Raises:
      InputError: it would take more than the memory of this machine.
    """
    needed = len(data.train) * math.prod(data.info.image_shape) * of_pixels + besides
    there = memory.total_bytes()
    if there is not None and needed > there:
        raise InputError(
            f"all {len(data.train)} train images of {data.info.name} with "
            f"{data.info.image_size}x{data.info.image_size} pixels, which are held at "
            f"once, and what is made of them take {needed / 1e9:,.0f} GB, but this "
            f"machine has {there / 1e9:,.0f} GB of memory: set a smaller "
            "dataset.image_size, or choose a method that reads some at a time, such as "
            "rded or sre2l"
        )


def _check_sizes(data: RealDataset, least: int, reason: str) -> None:
    sizes = np.bincount(data.train.labels, minlength=data.info.num_classes)
    for label in np.flatnonzero(sizes < least)[:1]:
        raise InputError(
            f"{reason or f'ipc is {least}'}, but class {label} of {data.info.name} has "
            f"{sizes[label]} training images"
        )
