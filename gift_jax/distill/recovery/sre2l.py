"""SRe2L: images that a teacher classifies, with its batch-norm statistics.

Reference: Yin, Xing and Shen, "Squeeze, Recover and Relabel: Dataset Condensation at
ImageNet Scale From A New Perspective", NeurIPS 2023, https://arxiv.org/abs/2306.13092,
and its official code, https://github.com/VILA-Lab/SRe2L: `SRe2L/recover/` and
`SRe2L/*small_dataset/`. Two things differ from that code: pixels are rounded to 8 bits,
where it truncates them and compresses them as JPEG; and a batch may take images of
several IPC indices, where it takes those of one. On CIFAR-10 a batch thus has 100
images, as in the official code on CIFAR-100, and not 10.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import optax

from gift_jax.data.info import DatasetInfo
from gift_jax.data.preprocess import Normalization
from gift_jax.distill.recovery import base, loop, statistics, views
from gift_jax.distill.recovery.real_statistics import RealLayer
from gift_jax.models.variables import Variables
from gift_jax.teachers import FlaxTeacher

# Least area of a crop in torchvision's RandomResizedCrop.
MIN_AREA = 0.08


class Constants(NamedTuple):
    """What differs between datasets.

    Attributes:
      iterations: Iterations of every batch.
      learning_rate: Learning rate of Adam.
      bn_weight: Weight of the distance of batch-norm statistics, the official `r_bn`.
      roll: Least and most pixels that images are rolled by.
      multi_crop: Whether the teacher sees a random crop, flipped or not, or the image.
    """

    iterations: int
    learning_rate: float
    bn_weight: float
    roll: tuple[int, int]
    multi_crop: bool


# The official scripts for CIFAR, Tiny-ImageNet and ImageNet-1k.
_CONSTANTS = (
    (32, Constants(1000, 0.25, 0.01, (0, 4), False)),
    (64, Constants(4000, 0.1, 1.0, (-4, 4), True)),
    (10**9, Constants(4000, 0.25, 0.01, (0, 32), True)),
)


@dataclasses.dataclass(frozen=True)
class Sre2l(base.Recovery):
    """Minimises cross-entropy and the distance of batch-norm statistics.

    Attributes:
      ipc: Images per class, at least 1.
      iterations: Iterations per batch; 0 stands for the constant of the image size.
      learning_rate: Learning rate of Adam; 0 as for `iterations`.
      bn_weight: Weight of the distance; 0 as for `iterations`.
      batch_size: Most images that are recovered together, and whose statistics are
        matched: 100 in the official code.
    """

    by_side: ClassVar[Any] = _CONSTANTS

    iterations: int = 0
    learning_rate: float = 0.0
    bn_weight: float = 0.0
    batch_size: int = 100

    def method(
        self,
        teacher: FlaxTeacher,
        normalization: Normalization,
        info: DatasetInfo,
        real: Sequence[Sequence[RealLayer]] = (),
    ) -> loop.Method:
        """The method by `constants`."""
        del real
        chosen = self.constants(info)
        least = functools.partial(self.min_area, iterations=chosen.iterations)
        return loop.Method(
            [objective(teacher, chosen, least)],
            [teacher.variables],
            normalization,
            chosen.iterations,
            chosen.learning_rate,
            self.batch_size,
        )

    def min_area(self, iteration: jax.Array, iterations: int) -> jax.Array | float:
        """The least area of crops in an iteration, out of `iterations`."""
        del iteration, iterations
        return MIN_AREA


def objective(
    teacher: FlaxTeacher,
    chosen: Constants,
    min_area: Callable[[jax.Array], jax.Array | float] = lambda iteration: MIN_AREA,
) -> loop.Objective:
    """Cross-entropy ("ce") and the distance of statistics ("bn") of random views.

    Args:
      teacher: The teacher.
      chosen: The constants.
      min_area: The least area of a crop, by the iteration.
    """

    def terms(
        variables: Variables, images: jax.Array, memory: tuple, task: loop.Task
    ) -> tuple[dict[str, jax.Array], tuple]:
        seen = view(task.key, images, chosen, min_area(task.iteration))
        return look(teacher, variables, seen, task.labels, chosen.bn_weight), memory

    return terms


def view(
    key: jax.Array, images: jax.Array, chosen: Constants, min_area: jax.Array | float
) -> jax.Array:
    """What the teacher sees of a batch in one iteration, (B, H, W, C)."""
    crop_key, flip_key, roll_key = jax.random.split(key, 3)
    if chosen.multi_crop:
        images = views.resized_crop(crop_key, images, min_area)
        images = views.flip(flip_key, images)
    return views.roll(roll_key, images, *chosen.roll)


def look(
    teacher: FlaxTeacher,
    variables: Variables,
    images: jax.Array,
    labels: jax.Array,
    bn_weight: float,
) -> dict[str, jax.Array]:
    """The terms of the loss of given views.

    Args:
      teacher: The teacher.
      variables: Its variables.
      images: (B, H, W, C) float32, normalised.
      labels: (B,) int32.
      bn_weight: Weight of the distance of statistics.

    Returns:
      Scalars: "ce", the mean cross-entropy, and "bn", weighted.
    """
    logits, layers = statistics.logits_and_layers(teacher.model, variables, images)
    ce = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return {"ce": ce, "bn": bn_weight * statistics.batch_norm_loss(layers)}
