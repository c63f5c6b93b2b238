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

import numpy as np
from PIL import Image

from gift_jax.data import real
from gift_jax.distilled.dataset import DistilledDataset, Metadata

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]

# Share of the image's area that a crop covers, and how often a crop that does
# not fit is drawn again: torchvision's RandomResizedCrop, which the official
# code calls with aspect ratio 1.
_AREA = (0.08, 1.0)
_ATTEMPTS = 10
# Crops given to the teacher at a time; constant, so that it compiles once.
_BATCH = 256
# Purposes of random draws.
_SHUFFLE, _CROP = 0, 1


@dataclasses.dataclass(frozen=True)
class _Recipe:
    ipc: int
    factor: int
    images_per_class: int
    crops_per_image: int
    seed: int


def make_rded(
    dataset: real.RealDataset,
    score: Score,
    *,
    ipc: int,
    factor: int = 1,
    images_per_class: int = 300,
    crops_per_image: int = 5,
    seed: int,
    on_class_done: Callable[[int], None] | None = None,
) -> DistilledDataset:
    """Makes each image of the `factor**2` most realistic crops of its class.

    Of each class, `images_per_class` training images are drawn and
    `crops_per_image` square crops of each are resized to S // factor. The crop
    with the lowest teacher loss stands for its image; of those, the
    ipc * factor**2 with the lowest losses are put together to `ipc` mosaics.

    Args:
      dataset: Where to draw from.
      score: `score(pixels, labels)` with pixels (256, S, S, C) float32 in [0, 1]
        and labels (256,) int32 gives the teacher's cross-entropy (256,), of each
        image by itself.
      ipc: Images per class, at least 1.
      factor: Crops along a side: 1 for CIFAR and Tiny-ImageNet, 2 for ImageNet
        and its subsets in the official scripts. S must be a multiple.
      images_per_class: 300 in the official scripts; of a smaller class all are
        used.
      crops_per_image: 5 in the official scripts.
      seed: Seed of all draws.
      on_class_done: Called with each class when its images are made.

    Returns:
      num_classes * ipc images, class by class, whose first crops are the best.

    Raises:
      ValueError: a class is too small, S is not a multiple of `factor`, or the
        teacher's losses are not numbers.
    """
    recipe = _Recipe(ipc, factor, images_per_class, crops_per_image, seed)
    info, labels = dataset.info, dataset.train.labels
    _check(recipe, dataset)
    images = []
    for label in range(info.num_classes):
        members = np.flatnonzero(labels == label)
        rng = np.random.default_rng([seed, _SHUFFLE, label])
        drawn = rng.permutation(members)[:images_per_class]
        crops = draw_crops(
            dataset.train,
            drawn,
            count=crops_per_image,
            side=info.image_size // factor,
            seed=seed,
        )
        padding = np.asarray(info.normalization.mean, np.float32)
        losses = crop_losses(score, crops, label, info.image_size, padding)
        images.append(mosaic(select(crops, losses, ipc * factor**2), factor))
        if on_class_done is not None:
            on_class_done(label)
    settings = ", ".join(f"{k} {v}" for k, v in dataclasses.asdict(recipe).items())
    return DistilledDataset(
        images=np.concatenate(images).astype(np.float32) / 255,
        labels=np.repeat(np.arange(info.num_classes), ipc),
        preprocess=info.normalization,
        metadata=Metadata(
            dataset=info.name,
            num_classes=info.num_classes,
            method="rded",
            source=f"rded: {settings}, split {info.train_split}",
        ),
    )


def _check(recipe: _Recipe, dataset: real.RealDataset) -> None:
    for name in ("ipc", "factor", "images_per_class", "crops_per_image"):
        if getattr(recipe, name) < 1:
            raise ValueError(f"{name} must be positive, got {getattr(recipe, name)}")
    info = dataset.info
    if info.image_size % recipe.factor:
        raise ValueError(
            f"factor {recipe.factor} does not divide the image size {info.image_size} "
            f"of {info.name}"
        )
    needed = recipe.ipc * recipe.factor**2
    counts = np.bincount(dataset.train.labels, minlength=info.num_classes)
    available = np.minimum(counts, recipe.images_per_class)
    smallest = int(np.argmin(available))
    if available[smallest] < needed:
        raise ValueError(
            f"ipc {recipe.ipc} with factor {recipe.factor} needs {needed} images of "
            f"each class, but class {smallest} of {info.name} has {counts[smallest]} "
            f"training images, of which images_per_class={recipe.images_per_class} "
            "may be used"
        )


def draw_crops(
    split: real.ImageSplit, indices: np.ndarray, *, count: int, side: int, seed: int
) -> np.ndarray:
    """Random crops of original images, resized with PIL's antialiased bilinear.

    Args:
      split: Where the images are.
      indices: (K,) which images. The crops of an image depend on its index and
        the seed alone.
      count: Crops of each image.
      side: What they are resized to.
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

    As torchvision's `RandomResizedCrop(scale=(0.08, 1), ratio=(1, 1))`: a square
    that does not fit is drawn again, after ten times the largest central square
    is taken.

    Args:
      rng: Source of the draw.
      height: Of the image.
      width: Of the image.
      count: How many.

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
      score: See `make_rded`.
      crops: (K, M, s, s, C) uint8, all of one class.
      label: The class.
      size: S, the side of the images that the teacher is given.
      padding: (C,) float32 pixel that surrounds crops. The official code pads
        normalised images with zeros: the channel mean.

    Returns:
      (K, M) float32.

    Raises:
      ValueError: the scores have another shape than (256,), or one is NaN.
    """
    flat = crops.reshape(-1, *crops.shape[2:])
    margin, side = (size - flat.shape[1]) // 2, flat.shape[1]
    inside = slice(margin, margin + side)
    labels = np.full(_BATCH, label, np.int32)
    losses = np.empty(len(flat), np.float32)
    for start in range(0, len(flat), _BATCH):
        chunk = flat[start : start + _BATCH]
        pixels = np.empty((_BATCH, size, size, flat.shape[-1]), np.float32)
        pixels[:] = padding
        pixels[: len(chunk), inside, inside] = chunk.astype(np.float32) / 255
        scores = np.asarray(score(pixels, labels))
        if scores.shape != (_BATCH,):
            raise ValueError(
                f"score returned shape {scores.shape} for {_BATCH} images, expected "
                f"({_BATCH},): one loss per image"
            )
        losses[start : start + _BATCH] = scores[: len(chunk)]
    if np.isnan(losses).any():
        raise ValueError(f"the teacher's loss is NaN for images of class {label}")
    return losses.reshape(crops.shape[:2])


def select(crops: np.ndarray, losses: np.ndarray, count: int) -> np.ndarray:
    """The best crop of each image, and of these the best.

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
