"""What all protocols share: the setting that they are for, and views spelt out."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from gift_jax.augment import AugmentSpec
from gift_jax.runtime.errors import InputError

T = TypeVar("T")

# Family whose recipe a dataset of gift_jax/data/info.py is given, at any size.
_FAMILIES = {
    **dict.fromkeys(("cifar10", "cifar100"), "cifar"),
    "tiny_imagenet": "tiny",
    **dict.fromkeys(("imagenet2012", "imagenet2012_64"), "imagenet"),
    **dict.fromkeys(("imagenet10", "imagenet100"), "imagenet"),
    **dict.fromkeys(("imagenette", "imagewoof"), "imagenet"),
}


class Setting(NamedTuple):
    """What a protocol's numbers depend on.

    Attributes:
      dataset: Name of the real dataset.
      image_size: Side in pixels; None where it is not known yet.
      num_classes: Number of classes, C; likewise.
      ipc: Images per class.
      teacher: Name of the teacher's network, without its options.
      students: Names of the students' networks, likewise.
    """

    dataset: str
    image_size: int | None
    num_classes: int | None
    ipc: int
    teacher: str
    students: tuple[str, ...]

    @property
    def side(self) -> int:
        """Side of the images in pixels.

        Raises:
          InputError: it is not known yet.
        """
        if self.image_size is None:
            raise InputError(
                f"a protocol depends on the size of images, which is not known of "
                f"{self.dataset} before it is read: set dataset.image_size, the side "
                "in pixels, where the protocol is chosen"
            )
        return self.image_size

    @property
    def family(self) -> str:
        """Family whose recipe it is given: "cifar", "tiny" or "imagenet".

        Authors have recipes for datasets by name, ImageNet's at 64 pixels, too. Others
        are given that of the nearest size: to 32 pixels, to 64, and above.

        Raises:
          InputError: see `side`.
        """
        if self.dataset in _FAMILIES:
            return _FAMILIES[self.dataset]
        return "cifar" if self.side <= 32 else "tiny" if self.side <= 64 else "imagenet"

    def at_most_all(self, batch_size: int) -> int:
        """A batch size, or the number of distilled images if that is smaller."""
        if self.num_classes is None:
            return batch_size
        return min(batch_size, self.ipc * self.num_classes)

    def of_students(self, what: str, by_name: Mapping[str, T], default: T) -> T:
        """A value that depends on the student.

        Raises:
          InputError: the value differs between the students.
        """
        values = [by_name.get(name, default) for name in self.students]
        if any(value != values[0] for value in values):
            raise InputError(
                f"student.name is {'+'.join(self.students)!r}, of which the protocol "
                f"has another {what} each ({values}): run them one at a time"
            )
        return values[0]


def views(**changed: Any) -> dict[str, Any]:
    """Every field of `augment`, so that nothing of the config's own remains.

    Args:
      **changed: Fields that are on.
    """
    fields = dataclasses.asdict(AugmentSpec(**changed))
    return {f"augment.{name}": value for name, value in fields.items()}


# Soft labels of a teacher, one for every view, with one view an epoch.
LABELS_OF_VIEWS = {"relabel.source": "store", "relabel.views": 0}
