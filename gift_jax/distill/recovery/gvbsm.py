"""G-VBSM: several teachers in turn, with the statistics of their convolutions, too.

Reference: Shao et al., "Generalized Large-Scale Data Condensation via Various Backbone
and Statistical Matching", CVPR 2024, https://arxiv.org/abs/2311.17950, and its official
code, https://github.com/shaoshitong/G_VBSM_Dataset_Condensation: `recover/` of its four
branches. Its teachers are ResNet-18, ConvNet-3, MobileNetV2, WRN-16-2 and ShuffleNetV2;
here, those of the config. Three things differ: pixels are rounded to 8 bits, not
truncated; averages over iterations begin anew with every batch; and a batch has whole
classes, where those of Tiny-ImageNet have a tenth of each, and the others end anywhere.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from gift_jax.data.info import DatasetInfo
from gift_jax.data.preprocess import Normalization
from gift_jax.data.real import RealDataset
from gift_jax.distill.recovery import (
    base,
    loop,
    real_statistics,
    sre2l,
    statistics,
    views,
)
from gift_jax.distill.recovery.real_statistics import RealLayer
from gift_jax.distill.recovery.statistics import Layer, Moments
from gift_jax.models import layers as layers_lib
from gift_jax.models.variables import Variables
from gift_jax.runtime.errors import InputError
from gift_jax.teachers import FlaxTeacher, ensemble

_DENSITY_SIDE = 32  # side that images are pooled to
_DENSITY_TEMPERATURE = 4.0  # `--tau`
_ROLL = (0, 32)  # `--jitter`

# For every layer, its moments averaged over iterations.
Averages = list[tuple[Moments, ...]]


class Constants(NamedTuple):
    """What differs between datasets.

    Attributes:
      iterations: Iterations of every batch, over all teachers.
      learning_rate: Learning rate of Adam.
      statistics_weight: Weight of the distance of statistics, the official `r_loss`.
      batch_size: Most images of a batch.
      momentum: Momentum of statistics averaged over iterations, the paper's alpha.
      drop_rate: Share of convolutions that an iteration skips, beta_dr.
      padding: Pixels around images before they are cropped back; with 0, resized crops
        of at least 8% of the area are taken instead.
    """

    iterations: int
    learning_rate: float
    statistics_weight: float
    batch_size: int
    momentum: float
    drop_rate: float
    padding: int


# `recover.sh`, and defaults beside it, for CIFAR, Tiny-ImageNet and ImageNet-1k.
_CONSTANTS = (
    (32, Constants(4000, 0.05, 0.01, 100, 0.8, 0.4, 4)),
    (64, Constants(4000, 0.05, 0.01, 100, 0.8, 0.4, 8)),
    (10**9, Constants(4000, 0.1, 0.01, 80, 0.4, 0.0, 0)),
)


@dataclasses.dataclass(frozen=True)
class Gvbsm(base.Recovery):
    """Minimises cross-entropy, a distance of statistics, and the density of classes.

    Attributes:
      ipc: Images per class, at least 1.
      iterations: Iterations per batch; 0 stands for the constant of the image size.
      learning_rate: Learning rate of Adam; 0 as for `iterations`.
      statistics_weight: Weight of the distance of statistics; 0 as for `iterations`.
      batch_size: Most images that are recovered together; 0 as for `iterations`.
    """

    needs: ClassVar[frozenset[str]] = base.Recovery.needs | {"teacher_statistics"}
    positive: ClassVar[tuple[str, ...]] = ("ipc",)
    by_side: ClassVar[Any] = _CONSTANTS

    iterations: int = 0
    learning_rate: float = 0.0
    statistics_weight: float = 0.0
    batch_size: int = 0

    def check_network(self, model: nn.Module, info: DatasetInfo) -> None:
        """Raises TeacherError for a network without any batch norm or convolution."""
        statistics.check_network(model, self.name, info, convolutions=True)

    def check(self, data: RealDataset) -> None:
        """Raises InputError where a batch cannot hold a whole class."""
        self.constants(data.info)

    def method(
        self,
        teacher: FlaxTeacher,
        normalization: Normalization,
        info: DatasetInfo,
        real: Sequence[Sequence[RealLayer]] = (),
    ) -> loop.Method:
        """The method by `constants`; the teachers take turns.

        Raises:
          InputError: see `check`.
        """
        chosen = self.constants(info)
        teachers = ensemble.members(teacher)
        side = real_statistics.patch_side(info.image_size)
        return loop.Method(
            [
                self.objective(member, chosen, number, side)
                for number, member in enumerate(teachers)
            ],
            [(t.variables, layers) for t, layers in zip(teachers, real, strict=True)],
            normalization,
            chosen.iterations,
            chosen.learning_rate,
            chosen.batch_size,
            by_class=True,
            memory=functools.partial(self.memory, teachers, side),
        )

    def constants(self, info: DatasetInfo) -> Any:
        """See `Recovery.constants`. Raises InputError as `check` does."""
        found = super().constants(info)
        if self.ipc > found.batch_size:
            raise InputError(
                f"{type(self).__name__}: ipc is {self.ipc}, but a batch, which has "
                f"whole classes, has {found.batch_size} images at most: set batch_size "
                f"to at least {self.ipc}"
            )
        return found

    def objective(
        self, teacher: FlaxTeacher, chosen: Any, number: int, side: int
    ) -> loop.Objective:
        """What is minimised with teacher `number`, by patches of `side` pixels."""
        return objective(teacher, chosen, number, self.ipc, side)

    def memory(
        self, teachers: Sequence[FlaxTeacher], side: int, images: jax.Array
    ) -> Any:
        """The memory before the first iteration on a batch of normalised images."""
        return first_averages(teachers, images, side)


def objective(
    teacher: FlaxTeacher, chosen: Constants, number: int, ipc: int, side: int
) -> loop.Objective:
    """Cross-entropy ("ce"), the distance of statistics and the density of classes.

    Args:
      teacher: One of several.
      chosen: The constants.
      number: Number of the teacher, by which the memory has its averages.
      ipc: Images of a class.
      side: Side of patches in pixels.

    Returns:
      An objective that takes, as variables, the teacher's and its `RealLayer`s.
    """

    def terms(
        given: Any, images: jax.Array, memory: list[Averages], task: loop.Task
    ) -> tuple[dict[str, jax.Array], list[Averages]]:
        variables, real = given
        view_key, drop_key = jax.random.split(task.key)
        seen = view(view_key, images, chosen.padding)
        logits, layers = statistics.logits_and_layers(teacher.model, variables, seen)
        loss, averages = statistics_loss(
            layers,
            [[expected(layer, of)] for layer, of in zip(layers, real, strict=True)],
            memory[number],
            momentum=chosen.momentum,
            kept=jax.random.bernoulli(drop_key, 1 - chosen.drop_rate, (len(layers),)),
            side=side,
        )
        ce = optax.softmax_cross_entropy_with_integer_labels(logits, task.labels)
        found = {
            "ce": ce.mean(),
            "statistics": chosen.statistics_weight * loss,
            "density": density(seen, ipc),
        }
        return found, [*memory[:number], averages, *memory[number + 1 :]]

    return terms


def view(key: jax.Array, images: jax.Array, padding: int) -> jax.Array:
    """What the teacher sees of a batch in one iteration, (B, H, W, C)."""
    crop_key, flip_key, roll_key = jax.random.split(key, 3)
    if padding:
        images = views.pad_crop(crop_key, images, padding)
    else:
        images = views.resized_crop(crop_key, images, sre2l.MIN_AREA)
    return views.roll(roll_key, views.flip(flip_key, images), *_ROLL)


def expected(layer: Layer, real: RealLayer) -> tuple[Moments, ...]:
    """A batch norm's running moments; for a convolution those of real images."""
    return real.of_batches if layer.running is None else (layer.running,)


def first_averages(
    teachers: Sequence[FlaxTeacher], images: jax.Array, side: int
) -> list[Averages]:
    """Zeros for every teacher: the official averages begin there."""

    def averages(
        teacher: FlaxTeacher, variables: Variables, images: jax.Array
    ) -> Averages:
        _, layers = statistics.logits_and_layers(teacher.model, variables, images)
        return [real_statistics.batch_moments(layer, side) for layer in layers]

    shapes = [
        jax.eval_shape(functools.partial(averages, t), t.variables, images)
        for t in teachers
    ]
    return jax.tree.map(lambda shape: jnp.zeros(shape.shape), shapes)


def statistics_loss(
    layers: Sequence[Layer],
    targets: Sequence[Sequence[tuple[Moments, ...]]],
    averages: Averages,
    *,
    momentum: float,
    kept: jax.Array,
    side: int,
) -> tuple[jax.Array, Averages]:
    """How far averages over iterations are from targets.

    The value is that of the averages; the gradient is that by the batch, unscaled.

    Args:
      layers: Layers with what they are fed.
      targets: For each layer one or more targets, whose distances are averaged.
      averages: Averages before this iteration.
      momentum: Share of the averages that stays.
      kept: (layers,) bool; convolutions that are not kept are skipped.
      side: Side of patches in pixels.

    Returns:
      The sum over layers, the first `statistics.FIRST_WEIGHT` times, and the next
      averages.
    """
    total, following = jnp.float32(0), []
    for number, layer in enumerate(layers):
        found = real_statistics.batch_moments(layer, side)
        average = jax.tree.map(
            lambda old, new: momentum * old + (1 - momentum) * new,
            averages[number],
            jax.lax.stop_gradient(found),
        )
        seen = jax.tree.map(
            lambda a, new: a + new - jax.lax.stop_gradient(new), average, found
        )
        loss = sum(
            (_distance(seen, target) for target in targets[number]), jnp.float32(0)
        ) / len(targets[number])
        if layer.running is None:
            loss = jnp.where(kept[number], loss, 0.0)
            average = jax.tree.map(
                lambda new, old: jnp.where(kept[number], new, old),  # noqa: B023
                average,
                averages[number],
            )
        total += loss * (statistics.FIRST_WEIGHT if number == 0 else 1.0)
        following.append(average)
    return total, following


def _distance(found: Sequence[Moments], target: Sequence[Moments]) -> jax.Array:
    pairs = zip(found, target, strict=True)
    return sum((statistics.distance(a, b) for a, b in pairs), jnp.float32(0))


def density(images: jax.Array, per_class: int) -> jax.Array:
    """Data densification: images of a class are to differ in many directions.

    The divergence of the softmax of the eigenvalues of a class's Gram matrix from what
    it is at temperature 4, a constant; summed over classes.

    Args:
      images: (B, H, W, C) float, those of a class one after the other.
      per_class: Number of images of a class; B is a multiple of it.

    Returns:
      Scalar.
    """
    if images.shape[1] != _DENSITY_SIDE:
        images = layers_lib.adaptive_average_pool(images, _DENSITY_SIDE)
    rows = images.reshape(-1, per_class, images[0].size)
    precise = jax.lax.Precision.HIGHEST
    gram = jnp.einsum("kif,kjf->kij", rows, rows, precision=precise)
    # Eigenvalues by fixed eigenvectors: they have the same gradient, also where two of
    # them are equal, and eigenvectors have none.
    vectors = jnp.linalg.eigh(jax.lax.stop_gradient(gram))[1]
    values = jnp.einsum("kip,kij,kjp->kp", vectors, gram, vectors, precision=precise)
    softened = jax.lax.stop_gradient(values) / _DENSITY_TEMPERATURE
    target, found = nn.softmax(softened), nn.log_softmax(values)
    return (target * (nn.log_softmax(softened) - found)).sum()
