"""EDC: real images become images that several teachers agree on.

Reference: Shao et al., "Elucidating the Design Space of Dataset Condensation", NeurIPS
2024, https://arxiv.org/abs/2404.13733, and its official code,
https://github.com/shaoshitong/EDC: `recover/` of its branches. Five things differ:
images begin as RDED's on all datasets, where the scripts for CIFAR and Tiny-ImageNet
take random ones of the train split, and that for ImageNet-1k draws from RDED's with
replacement, flips them and shuffles their quarters; the flatness term, which the
scripts leave off and the code for ImageNet-1k cannot turn on, is on; pixels, averages
and batches are as in `gvbsm`; and ImageNet's subsets have the constants of ImageNet-1k,
where the script for one of ten classes has 50 iterations of batches of 100, without
momentum, at a weight of 0.01.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gift_jax.data.info import DatasetInfo
from gift_jax.data.real import RealDataset
from gift_jax.distill.rded import Rded
from gift_jax.distill.recovery import gvbsm, loop, statistics, views
from gift_jax.distill.recovery.gvbsm import Averages
from gift_jax.distill.recovery.real_statistics import RealLayer
from gift_jax.distill.recovery.statistics import Moments
from gift_jax.distill.unfinished import Unfinished
from gift_jax.runtime import preemption
from gift_jax.teachers import FlaxTeacher

_EMA = 0.99  # decay of images averaged over iterations, `--ema_alpha` on CIFAR
_TEMPERATURE = 4.0  # of the flatness term
_INITIAL = "initial"


class Constants(NamedTuple):
    """What differs between datasets.

    Attributes:
      iterations: Iterations of every batch, over all teachers.
      learning_rate: Learning rate of Adam.
      statistics_weight: Weight of the distance of statistics, the official `r_loss`.
      batch_size: Most images of a batch.
      momentum: Momentum of statistics averaged over iterations.
      min_area: Least area of crops, as a fraction of the image.
      factor: Crops along a side of the first images, see `rded`.
    """

    iterations: int
    learning_rate: float
    statistics_weight: float
    batch_size: int
    momentum: float
    min_area: float
    factor: int


# `recover.sh` for CIFAR-100, Tiny-ImageNet and ImageNet-1k. There is one for CIFAR-10
# at IPC 1 only, of 75 iterations, with smaller crops.
_CONSTANTS = (
    (64, Constants(2000, 0.05, 0.01, 100, 0.8, 0.5, 1)),
    (10**9, Constants(1000, 0.05, 0.1, 80, 0.8, 0.5, 2)),
)
_MIN_AREA_OF_CIFAR10 = 0.08


class Memory(NamedTuple):
    """What an iteration leaves to the next.

    Attributes:
      images: (B, H, W, C) images averaged over iterations.
      averages: Averages of the statistics of every teacher.
    """

    images: jax.Array
    averages: list[Averages]


@dataclasses.dataclass(frozen=True)
class Edc(gvbsm.Gvbsm):
    """Minimises cross-entropy, a distance of statistics, and sharpness.

    Attributes:
      ipc: Images per class, at least 1.
      iterations: Iterations per batch; 0 stands for the constant of the image size.
      learning_rate: Learning rate of Adam; 0 as for `iterations`.
      statistics_weight: Weight of the distance of statistics; 0 as for `iterations`.
      batch_size: Most images that are recovered together; 0 as for `iterations`.
      flatness_weight: Weight of the divergence from the logits of images averaged over
        iterations; 1 by default in the official code, whose scripts leave it off.
    """

    needs: ClassVar[frozenset[str]] = gvbsm.Gvbsm.needs | {"train_images"}
    by_side: ClassVar[Any] = _CONSTANTS

    flatness_weight: float = 1.0

    def initial(
        self,
        data: RealDataset,
        teacher: FlaxTeacher,
        seed: int,
        unfinished: Unfinished,
    ) -> np.ndarray:
        """RDED's images."""
        first = self.first(data.info)

        def stop(done: int, total: int, **terms: float) -> None:
            if preemption.requested() and done < total:
                raise preemption.PreemptedError

        def make() -> np.ndarray:
            made = first.make(data, teacher=teacher, seed=seed, on_progress=stop)
            return made.images

        return unfinished.kept_or_made(_INITIAL, make)

    def check(self, data: RealDataset) -> None:
        """Raises InputError as `check` of G-VBSM or of RDED does."""
        super().check(data)
        self.first(data.info).check(data)

    def first(self, info: DatasetInfo) -> Rded:
        """RDED for the images to start from. Raises InputError as `constants` does."""
        factor = self.constants(info).factor
        images = max(Rded.images_per_class, self.ipc * factor**2)
        return Rded(self.ipc, factor=factor, images_per_class=images)

    def constants(self, info: DatasetInfo) -> Constants:
        """See `Gvbsm`; crops are smaller for up to ten classes of small images.

        Raises InputError as there.
        """
        found = super().constants(info)
        few = info.image_size <= 32 and info.num_classes <= 10
        return found._replace(min_area=_MIN_AREA_OF_CIFAR10) if few else found

    def objective(
        self, teacher: FlaxTeacher, chosen: Constants, number: int, side: int
    ) -> loop.Objective:
        """The objective of EDC."""
        return objective(teacher, chosen, number, self.flatness_weight, side)

    def memory(
        self, teachers: Sequence[FlaxTeacher], side: int, images: jax.Array
    ) -> Memory:
        """The images, and zeros as averages."""
        return Memory(images, gvbsm.first_averages(teachers, images, side))


def objective(
    teacher: FlaxTeacher,
    chosen: Constants,
    number: int,
    flatness_weight: float,
    side: int,
) -> loop.Objective:
    """Cross-entropy ("ce"), the distance of statistics, and "flatness".

    Args:
      teacher: One of several.
      chosen: The constants.
      number: Number of the teacher, by which the memory has its averages.
      flatness_weight: See `Edc`.
      side: Side of patches in pixels.

    Returns:
      An objective that takes, as variables, the teacher's and its `RealLayer`s.
    """

    def terms(
        given: Any, images: jax.Array, memory: Memory, task: loop.Task
    ) -> tuple[dict[str, jax.Array], Memory]:
        variables, real = given
        seen = view(task.key, images, chosen.min_area)
        logits, layers = statistics.logits_and_layers(teacher.model, variables, seen)
        loss, averages = gvbsm.statistics_loss(
            layers,
            [
                [gvbsm.expected(layer, of), of_labels(of, task.labels)]
                for layer, of in zip(layers, real, strict=True)
            ],
            memory.averages[number],
            momentum=chosen.momentum,
            kept=jnp.ones(len(layers), bool),
            side=side,
        )
        ce = optax.softmax_cross_entropy_with_integer_labels(logits, task.labels)
        found = {"ce": ce.mean(), "statistics": chosen.statistics_weight * loss}
        if flatness_weight:
            averaged = view(task.key, memory.images, chosen.min_area)
            calm, _ = statistics.logits_and_layers(teacher.model, variables, averaged)
            found["flatness"] = flatness_weight * flatness(logits, calm)
        kept = jax.lax.stop_gradient(images)
        others = memory.averages
        return found, Memory(
            _EMA * memory.images + (1 - _EMA) * kept,
            [*others[:number], averages, *others[number + 1 :]],
        )

    return terms


def view(key: jax.Array, images: jax.Array, min_area: float) -> jax.Array:
    """What the teacher sees of a batch in one iteration, (B, H, W, C)."""
    crop_key, flip_key = jax.random.split(key)
    return views.flip(flip_key, views.resized_crop(crop_key, images, min_area))


def of_labels(real: RealLayer, labels: jax.Array) -> tuple[Moments, ...]:
    """Moments of real images of the classes of a batch, averaged over its images."""
    return jax.tree.map(lambda of: of[labels].mean(0), real.of_classes)


def flatness(logits: jax.Array, averaged: jax.Array) -> jax.Array:
    """EMA-CE: the divergence from the logits of images averaged over iterations.

    Args:
      logits: (B, C) logits of the images.
      averaged: (B, C) logits of their averages; a constant.

    Returns:
      Scalar: the mean over images and classes, as PyTorch's `kl_div` takes it.
    """
    target = jax.lax.stop_gradient(averaged) / _TEMPERATURE
    found = nn.log_softmax(logits / _TEMPERATURE)
    return (nn.softmax(target) * (nn.log_softmax(target) - found)).mean()
