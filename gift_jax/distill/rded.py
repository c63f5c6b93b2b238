"""RDED: crops of real images that the teacher finds most realistic.

Reference: Sun, Shi, Yu and Lin, "On the Diversity and Realism of Distilled
Dataset: An Efficient Dataset Distillation Paradigm", CVPR 2024,
https://arxiv.org/abs/2312.03526, and its official code, `synthesize/` in
https://github.com/LINs-lab/RDED. Two things differ from that code: it draws
without a seed, and it stores pixels truncated to 8 bits and JPEG-compressed. Here
crops are rounded to 8 bits before they are scored, and stored as they were
scored.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from gift_jax import losses
from gift_jax.data.image_split import ImageSplit
from gift_jax.data.preprocess import Normalization
from gift_jax.data.real import RealDataset
from gift_jax.distill import base
from gift_jax.distilled import DistilledDataset
from gift_jax.runtime.errors import InputError
from gift_jax.teachers import FlaxTeacher, Teacher, TeacherError

# `score(pixels, labels)` with pixels (256, S, S, C) float32 in [0, 1] and labels
# (256,) int32 gives a teacher's loss for each image, (256,).
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]

# Share of the image's area that a crop covers, and how often a crop that does
# not fit is drawn again: torchvision's RandomResizedCrop, which the official
# code calls with aspect ratio 1.
_AREA = (0.08, 1.0)
_ATTEMPTS = 10
# Crops given to the teacher at a time; constant, so that it compiles once.
BATCH = 256
# Purposes of random draws.
_SHUFFLE, _CROP = 0, 1


@dataclasses.dataclass(frozen=True)
class Rded:
    """Composes each image of `factor**2` of the most realistic crops of its class.

    Of each class, `images_per_class` training images are drawn and
    `crops_per_image` square crops of each are resized to S // factor. The crop
    with the lowest teacher loss stands for its image; of those, the
    ipc * factor**2 with the lowest losses are put together to `ipc` mosaics.

    Attributes:
      ipc: Images per class, at least 1.
      factor: Crops along a side: 1 for CIFAR and Tiny-ImageNet, 2 for ImageNet
        and its subsets in the official scripts. S must be a multiple.
      images_per_class: Training images drawn from each class, 300 in the official
        scripts; all of a smaller class.
      crops_per_image: Crops drawn from each of them, 5 in the official scripts.

    Raises:
      InputError: an option is not positive.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"teacher", "train_images"})

    ipc: int
    factor: int = 1
    images_per_class: int = 300
    crops_per_image: int = 5

    def __post_init__(self) -> None:
        """Checks the options."""
        options = ("ipc", "factor", "images_per_class", "crops_per_image")
        base.check_options(self, positive=options)

    @property
    def _needed(self) -> tuple[int, str]:
        """How many images of each class are needed, one per crop, and why."""
        images = self.ipc * self.factor**2
        return images, (
            f"Rded: ipc {self.ipc} with factor {self.factor} needs {images} images of "
            "each class"
        )

    def check(self, data: RealDataset) -> None:
        """Checks what can be known before a teacher is there.

        Raises:
          InputError: S is not a multiple of `factor`, or mosaics need more images than
            `images_per_class` or than a class has.
        """
        info = data.info
        if info.image_size % self.factor:
            raise InputError(
                f"Rded: factor {self.factor} does not divide the image size "
                f"{info.image_size} of {info.name}"
            )
        images, reason = self._needed
        if images > self.images_per_class:
            raise InputError(
                f"{reason}, but images_per_class is {self.images_per_class}: set it to "
                f"at least {images}"
            )
        base.check_class_sizes(data, images, reason)

    def make(
        self,
        data: RealDataset,
        *,
        teacher: Teacher | None,
        seed: int,
        on_progress: base.OnProgress | None = None,
    ) -> DistilledDataset:
        """Makes the images, see `base.Distiller`; progress counts classes.

        Returns:
          num_classes * ipc images, class by class, whose first crops are the best.

        Raises:
          InputError: there is no teacher, a class is too small, or S is not a
            multiple of `factor`.
          TeacherError: the teacher's losses are not numbers.
        """
        if teacher is None:
            raise InputError("rded needs a teacher, to score crops")
        self.check(data)
        info = data.info
        score = make_score(teacher)
        padding = padding_of(teacher, info.normalization)
        images = []
        for label, members in enumerate(base.class_members(data, *self._needed)):
            rng = np.random.default_rng([seed, _SHUFFLE, label])
            crops = draw_crops(
                data.train,
                rng.permutation(members)[: self.images_per_class],
                count=self.crops_per_image,
                side=info.image_size // self.factor,
                seed=seed,
            )
            losses_of = crop_losses(score, crops, label, info.image_size, padding)
            best = select(crops, losses_of, self.ipc * self.factor**2)
            images.append(mosaic(best, self.factor))
            if on_progress is not None:
                on_progress(label + 1, info.num_classes)
        return base.distilled_dataset(self, data, images, seed=seed)


def padding_of(teacher: Teacher, normalization: Normalization) -> np.ndarray:
    """(C,) float32 pixel that is zero after a teacher's normalisation.

    Args:
      teacher: The teacher, whose own channel means are used if it exposes them.
      normalization: The real dataset's, used otherwise.
    """
    own = getattr(teacher, "preprocess", None)
    used = own if isinstance(own, Normalization) else normalization
    return np.asarray(used.mean, np.float32)


def make_score(teacher: Teacher) -> Score:
    """A teacher's cross-entropy, by which crops are chosen."""
    cross_entropy = losses.get_loss("ce")
    if not isinstance(teacher, FlaxTeacher):

        def score(pixels: np.ndarray, labels: np.ndarray) -> np.ndarray:
            logits = jnp.asarray(teacher.logits(pixels))
            return np.asarray(cross_entropy(logits, logits, jnp.asarray(labels)))

        return score

    @jax.jit
    def fused(variables: Any, pixels: jax.Array, labels: jax.Array) -> jax.Array:
        inputs = teacher.preprocess.apply(pixels)
        logits = jnp.asarray(teacher.model.apply(variables, inputs, train=False))
        return cross_entropy(logits, logits, labels)

    variables = jax.device_put(teacher.variables)
    return lambda pixels, labels: np.asarray(fused(variables, pixels, labels))


def draw_crops(
    split: ImageSplit, indices: np.ndarray, *, count: int, side: int, seed: int
) -> np.ndarray:
    """Random crops of original images, resized with PIL's antialiased bilinear.

    Args:
      split: The split that holds the images.
      indices: (K,) indices of the images. The crops of an image depend on its index
        and the seed alone.
      count: Crops of each image.
      side: Side in pixels that crops are resized to.
      seed: Seed of the draw.

    Returns:
      (K, count, side, side, C) uint8.
    """

    def crop(index: int, image: Image.Image) -> np.ndarray:
        rng = np.random.default_rng([seed, _CROP, index])
        boxes = crop_boxes(rng, image.height, image.width, count)
        # Not `resize(box=...)`, whose filter would see pixels beyond the crop.
        crops = [
            image.crop(box).resize((side, side), Image.Resampling.BILINEAR)
            for box in boxes.tolist()
        ]
        return np.stack([np.asarray(crop) for crop in crops])

    crops = np.stack(list(split.map(crop, indices)))
    return crops if crops.ndim == 5 else crops[..., None]


def crop_boxes(
    rng: np.random.Generator, height: int, width: int, count: int
) -> np.ndarray:
    """Draws squares of 8% to 100% of the image's area, uniform in area.

    Like torchvision's `RandomResizedCrop(scale=(0.08, 1), ratio=(1, 1))`: a square that
    does not fit is drawn again; after ten attempts the largest central square is taken.

    Args:
      rng: Source of the draw.
      height: Height of the image.
      width: Width of the image.
      count: Number of squares.

    Returns:
      (count, 4) int64: left, top, right, bottom.
    """
    return np.array([_crop_box(rng, height, width) for _ in range(count)])


def _crop_box(
    rng: np.random.Generator, height: int, width: int
) -> tuple[int, int, int, int]:
    for _ in range(_ATTEMPTS):
        side = round(math.sqrt(height * width * rng.uniform(*_AREA)))
        if 0 < side <= min(height, width):
            top = int(rng.integers(height - side + 1))
            left = int(rng.integers(width - side + 1))
            return left, top, left + side, top + side
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return left, top, left + side, top + side


def crop_losses(
    score: Score, crops: np.ndarray, label: int, size: int, padding: np.ndarray
) -> np.ndarray:
    """The teacher's loss for each crop, in the middle of an otherwise empty image.

    Args:
      score: See `Score`.
      crops: (K, M, s, s, C) uint8, all of one class.
      label: The class.
      size: S, the side of the images that the teacher is given.
      padding: (C,) float32 pixel that surrounds crops. The official code pads
        normalised images with zeros: the channel mean.

    Returns:
      (K, M) float32.

    Raises:
      TeacherError: a loss is NaN.
    """
    flat = crops.reshape(-1, *crops.shape[2:])
    margin, side = (size - flat.shape[1]) // 2, flat.shape[1]
    inside = slice(margin, margin + side)
    labels = np.full(BATCH, label, np.int32)
    found = np.empty(len(flat), np.float32)
    for start in range(0, len(flat), BATCH):
        chunk = flat[start : start + BATCH]
        pixels = np.empty((BATCH, size, size, flat.shape[-1]), np.float32)
        pixels[:] = padding
        pixels[: len(chunk), inside, inside] = chunk.astype(np.float32) / 255
        found[start : start + BATCH] = score(pixels, labels)[: len(chunk)]
    if np.isnan(found).any():
        raise TeacherError(f"the teacher's loss is NaN for images of class {label}")
    return found.reshape(crops.shape[:2])


def select(crops: np.ndarray, losses: np.ndarray, count: int) -> np.ndarray:
    """The best crop of each image, and the best `count` of those.

    Args:
      crops: (K, M, s, s, C).
      losses: (K, M).
      count: How many to keep, at most K.

    Returns:
      (count, s, s, C) with ascending losses; equal losses keep their order.
    """
    best = losses.argmin(axis=1)
    images = np.arange(len(losses))
    kept = np.argsort(losses[images, best], kind="stable")[:count]
    return crops[kept, best[kept]]


def mosaic(patches: np.ndarray, factor: int) -> np.ndarray:
    """Puts factor x factor patches together to one image.

    Of n images, image i gets patches i, n + i, 2n + i, ... in row-major cells:
    if patches are sorted, the top left cells hold the n best.

    Args:
      patches: (n * factor**2, s, s, C).
      factor: Patches along a side.

    Returns:
      (n, factor * s, factor * s, C).
    """
    side, channels = patches.shape[1], patches.shape[3]
    cells = patches.reshape(factor, factor, -1, side, side, channels)
    return cells.transpose(2, 0, 3, 1, 4, 5).reshape(
        -1, factor * side, factor * side, channels
    )
