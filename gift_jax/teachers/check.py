"""Checks that a teacher knows the images it is to label, before it labels them.

Soft labels of a teacher whose classes are numbered in another order are the commonest
cause of students at chance level (LINs-lab/RDED issues 3, 4 and 6, CaO2 issue 2). The
order that would correct it is shown, and never applied.
"""

import logging
from collections.abc import Callable

import numpy as np

from gift_jax.data import real
from gift_jax.distilled import DistilledDataset
from gift_jax.teachers.base import (
    BATCH_SIZE,
    Teacher,
    TeacherError,
    logits_in_batches,
)

_log = logging.getLogger(__name__)

# With fewer images per class, a permutation fits chance too well to be believed.
_LEAST_IMAGES_PER_CLASS = 5
_SHOWN_CLASSES = 20
_NO_HINT = (
    "No renumbering of the classes mends it, as far as can be told from these images."
)


def check_on_distilled(
    teacher: Teacher,
    dataset: DistilledDataset,
    *,
    min_accuracy: float | None = None,
) -> float:
    """Checks a teacher on the distilled images, not augmented.

    Args:
      teacher: The teacher.
      dataset: Dataset that it is to label.
      min_accuracy: Least accuracy, in percent; by default `least_accuracy`.

    Returns:
      The accuracy, in percent.

    Raises:
      TeacherError: the teacher has another number of classes, gives NaN, or its
        accuracy is below `min_accuracy`; the message shows the renumbering of classes
        that would correct it, if there is one.
    """
    pixels = dataset.pixels()
    return _check(
        teacher,
        lambda chosen: pixels[chosen],
        dataset.labels,
        dataset.metadata.num_classes,
        "distilled images",
        min_accuracy,
    )


def check_on_real(
    teacher: Teacher,
    data: real.RealDataset,
    *,
    num_images: int = 2000,
    min_accuracy: float | None = None,
) -> float:
    """Checks a teacher on some images of the real test split.

    Args:
      teacher: The teacher.
      data: The real dataset.
      num_images: Number of images, taken at equal distances; all if there are fewer.
      min_accuracy: Least accuracy, in percent; by default `least_accuracy`.

    Returns:
      The accuracy on those images, in percent.

    Raises:
      TeacherError: as `check_on_distilled`.
    """
    split = data.test
    chosen = np.linspace(0, len(split) - 1, min(num_images, len(split))).astype(int)
    return _check(
        teacher,
        lambda some: split.images(chosen[some]).astype(np.float32) / 255,
        split.labels_of(chosen),
        data.info.num_classes,
        "real test images",
        min_accuracy,
    )


def least_accuracy(num_classes: int) -> float:
    """The accuracy, in percent, below which labels are taken for those of other images.

    A tenth of the way from chance to 100%.
    """
    chance = 100 / num_classes
    return chance + 0.1 * (100 - chance)


def _check(
    teacher: Teacher,
    pixels: Callable[[slice], np.ndarray],
    labels: np.ndarray,
    num_classes: int,
    images: str,
    min_accuracy: float | None,
) -> float:
    starts = range(0, len(labels), BATCH_SIZE)
    batches = (pixels(slice(start, start + BATCH_SIZE)) for start in starts)
    logits = np.concatenate(list(logits_in_batches(teacher, batches)))
    if logits.shape[1] != num_classes:
        raise TeacherError(
            f"the teacher {teacher.name} tells {logits.shape[1]} classes apart, but "
            f"the {images} are of {num_classes} classes"
        )
    if not np.isfinite(logits).all():
        raise TeacherError(
            f"the teacher {teacher.name} gives NaN or infinite logits for {images}: "
            "its weights are broken or do not belong to this architecture"
        )
    predictions = logits.argmax(axis=1)
    accuracy = 100 * float(np.mean(predictions == labels))
    hint = renumbering_hint(labels, predictions, num_classes)
    if min_accuracy is None:
        min_accuracy = least_accuracy(num_classes)
    if accuracy < min_accuracy:
        raise TeacherError(
            f"the teacher {teacher.name} classifies {accuracy:.1f}% of the {images} "
            f"correctly, expected at least {min_accuracy:.1f}% (chance is "
            f"{100 / num_classes:.1f}%). The usual cause is a class order that "
            "differs: folders in alphabetical order against the order the teacher was "
            "trained with. Other causes: another normalisation, another dataset. "
            f"{hint or _NO_HINT} Set "
            "teacher.min_accuracy to go on regardless."
        )
    if hint:
        _log.warning(
            "the teacher %s classifies %.1f%% of the %s correctly. %s",
            teacher.name,
            accuracy,
            images,
            hint,
        )
    return accuracy


def renumbering_hint(
    labels: np.ndarray, predictions: np.ndarray, num_classes: int
) -> str:
    """Says which renumbering of the classes would correct an accuracy, if one would.

    The best renumbering is the optimal assignment on the confusion matrix.

    Args:
      labels: (N,) integer classes.
      predictions: (N,) integer classes.
      num_classes: C.

    Returns:
      A sentence; empty if no renumbering corrects more than half of the errors.
    """
    if len(labels) < _LEAST_IMAGES_PER_CLASS * num_classes:
        return ""
    confusion = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(confusion, (labels, predictions), 1)
    from scipy import optimize  # slow to import

    ours, theirs = optimize.linear_sum_assignment(confusion, maximize=True)
    accuracy = np.trace(confusion) / len(labels)
    mended = confusion[ours, theirs].sum() / len(labels)
    if mended - accuracy <= 0.5 * (1 - accuracy):
        return ""
    moved = [f"{a}->{b}" for a, b in zip(ours, theirs, strict=True) if a != b]
    more = ", ..." if len(moved) > _SHOWN_CLASSES else ""
    return (
        f"The class order differs: with the labels {', '.join(moved[:_SHOWN_CLASSES])}"
        f"{more} renumbered it would be {100 * mended:.1f}%."
    )
