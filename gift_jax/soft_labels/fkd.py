"""Published soft labels: the FKD folders of SRe2L and G-VBSM.

SRe2L's relabelling (https://github.com/VILA-Lab/SRe2L, `relabel/`) augments every batch
of every epoch, runs the teacher, and stores the random parameters with the logits:

    FKD_cutmix_fp16/epoch_0/batch_0.tar ...    each a torch.save of a list

Every epoch has each image once, so that an epoch is a view of all images, and the
folder is the same thing as a soft-label store: logits (views, N, C), to be trained on
with the very views they were made for. `FkdLabels` reads it and `replay` makes those
views. The batch that an image was in only matters for finding its mix partner.

The teacher of SRe2L saw crops that Pillow had rounded to 8 bits; those replayed here
are not rounded, and differ by up to a grey level.
"""

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from gift_jax import augment
from gift_jax.runtime.errors import InputError
from gift_jax.torch_io import torch_files

Array = np.ndarray | jax.Array

_SAMPLER_SEED = 42  # --fkd-seed
_SHOWN = 5


class FkdView(flax.struct.PyTreeNode):
    """The parameters and the labels of one view of all images.

    Attributes:
      mix: "none", "mixup" or "cutmix".
      crops: (N, 4) float32: top, left, height, width, as fractions of the image.
      flips: (N,) bool, whether the crop is mirrored.
      partners: (N,) int32, the image whose crop is mixed in.
      lam: (N,) float32, mixup's share of the image itself.
      boxes: (N, 4) int32, cutmix's top, left, bottom, right in pixels.
      logits: (N, C) float16 of the teacher on the view.
      progress: See `views.View`.
    """

    mix: str = flax.struct.field(pytree_node=False)
    crops: Array
    flips: Array
    partners: Array
    lam: Array
    boxes: Array
    logits: Array
    progress: Array | float = 0.0

    def agreement(self, labels: np.ndarray) -> float:
        """The share of images whose top-1 class is that of the image or of its partner.

        A share near 1 / C means that the labels are not in the order of the images.

        Args:
          labels: (N,) integer classes of the images.
        """
        top1 = self.logits.argmax(axis=1)
        return float(np.mean((top1 == labels) | (top1 == labels[self.partners])))


class FkdLabels:
    """An FKD folder as a source of soft labels, see `base.SoftLabels`.

    G-VBSM stores the index of each image. SRe2L does not: its order is that of
    PyTorch's RandomSampler with a generator of seed 42 over a torchvision ImageFolder,
    which is the order of `read_distilled` for class folders. It is drawn here as
    torch 1.12 and later draw it.

    Args:
      directory: The folder with `epoch_0/`, `epoch_1/` ...

    Attributes:
      path: The folder.
      views: Number of epochs.
      num_images: N.

    Raises:
      FileNotFoundError: there is no `epoch_0` or no batch in it.
      InputError: epochs or batches are missing, or the first epoch is malformed.
    """

    def __init__(self, directory: str | os.PathLike) -> None:
        self.path = pathlib.Path(directory)
        self.views = self._count_epochs()
        self.num_images = sum(len(batch) for batch in self._batches(0))

    def _count_epochs(self) -> int:
        epochs = _numbered(self.path, "epoch_", "")
        counts = [len(_numbered(epoch, "batch_", ".tar")) for epoch in epochs]
        fewest = int(np.argmin(counts))
        if counts[fewest] < max(counts):
            raise InputError(
                f"{epochs[fewest]} holds {counts[fewest]} batches, other epochs hold "
                f"{max(counts)}: download it again"
            )
        return len(epochs)

    def read(self, view: int) -> FkdView:
        """Reads an epoch, in the order of the images.

        Raises:
          InputError: a batch is malformed or missing, or the batches do not hold
            every image once.
        """
        batches = self._batches(view)
        indices = self._indices(view, batches)
        # Partners as positions in the epoch, for which `indices` has the images.
        starts = np.cumsum([0, *map(len, batches[:-1])])
        partners = np.concatenate(
            [start + b.partners for start, b in zip(starts, batches, strict=True)]
        )
        in_image_order = np.argsort(indices)
        stored = {
            name: np.concatenate([getattr(batch, name) for batch in batches])
            for name in ("crops", "flips", "lam", "boxes", "logits")
        }
        stored["partners"] = indices[partners].astype(np.int32)
        return FkdView(
            mix=batches[0].mix,
            **{name: values[in_image_order] for name, values in stored.items()},
        )

    def start_reading(self, view: int) -> Callable[[], FkdView]:
        """A function that reads the view."""
        return functools.partial(self.read, view)

    def _batches(self, view: int) -> list["_Batch"]:
        files = _numbered(self.path / f"epoch_{view}", "batch_", ".tar")
        batches = [_read_batch(file) for file in files]
        kinds = {(batch.mix, batch.logits.shape[1]) for batch in batches}
        if len(kinds) > 1:
            raise InputError(
                f"batches of {files[0].parent} differ in their mix or number of "
                f"classes: {sorted(kinds)}"
            )
        return batches

    def _indices(self, view: int, batches: list["_Batch"]) -> np.ndarray:
        """The image at each position of the epoch."""
        num_images = sum(map(len, batches))
        if all(batch.indices is not None for batch in batches):
            indices = np.concatenate([batch.indices for batch in batches])
        else:
            indices = sampler_order(num_images, view)
        if not np.array_equal(np.sort(indices), np.arange(self.num_images)):
            raise InputError(
                f"epoch {view} of {self.path} labels {num_images} images, "
                f"{len(np.unique(indices))} of them different; expected each of the "
                f"{self.num_images} once: a batch may be missing"
            )
        return indices


def _numbered(directory: pathlib.Path, prefix: str, suffix: str) -> list[pathlib.Path]:
    """The entries prefix0suffix, prefix1suffix ... of a directory, in order."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)" + re.escape(suffix))
    entries = list(directory.iterdir()) if directory.is_dir() else []
    matches = [pattern.fullmatch(entry.name) for entry in entries]
    numbers = sorted(int(match[1]) for match in matches if match)
    if not numbers:
        raise FileNotFoundError(
            f"{directory} holds no {prefix}0{suffix}; expected an FKD folder with "
            "epoch_0/batch_0.tar"
        )
    missing = sorted(set(range(len(numbers))) - set(numbers))
    if missing:
        raise InputError(
            f"{directory} holds {prefix}{numbers[-1]}{suffix}, but lacks the numbers "
            f"{missing[:_SHOWN]}: download it again"
        )
    return [directory / f"{prefix}{number}{suffix}" for number in numbers]


@dataclasses.dataclass(frozen=True, eq=False)
class _Batch:
    """Contents of a file; as `FkdView`, but partners are positions in the batch."""

    mix: str
    crops: np.ndarray
    flips: np.ndarray
    partners: np.ndarray
    lam: np.ndarray
    boxes: np.ndarray
    logits: np.ndarray
    indices: np.ndarray | None

    def __len__(self) -> int:
        return len(self.logits)


def _read_batch(path: pathlib.Path) -> _Batch:
    stored = torch_files.load_torch(path)
    if not isinstance(stored, list) or len(stored) not in (6, 7):
        found = len(stored) if isinstance(stored, list) else type(stored).__name__
        raise InputError(
            f"{path} holds {found} entries, expected the 6 of SRe2L or the 7 of G-VBSM "
            "(the eighth of EDC's ImageNet-10 branch shuffles patches, which is not "
            "replayed)"
        )
    crops, flips, partners, lam, box, logits, indices = [*stored, None][:7]
    logits = _array(f"{path}: logits", logits)
    size = len(logits) if logits.ndim else 0

    def checked(name: str, values: Any, *shape: int, kinds: str = "biuf") -> np.ndarray:
        return _checked(f"{path}: {name}", values, shape, kinds)

    crops = checked("crop coordinates", crops, size, 4).astype(np.float32)
    flips = checked("flips", flips, size).astype(np.bool_)
    logits = checked("logits", logits, size, *logits.shape[-1:])
    with np.errstate(over="ignore"):
        logits = logits.astype(np.float16)
    if not np.isfinite(logits).all():
        raise InputError(
            f"{path}: logits hold NaN, infinity or numbers beyond those of float16"
        )
    if partners is not None:
        partners = checked("mix partners", partners, size, kinds="iu")
        if not 0 <= partners.min() <= partners.max() < size:
            raise InputError(f"{path}: a mix partner is outside the batch of {size}")
    if indices is not None:
        indices = checked("indices", indices, size, kinds="iu")
    mix = "none" if partners is None else "mixup" if box is None else "cutmix"
    lam = checked("mix share", 1.0 if lam is None else lam)
    box = checked("mix box", (0, 0, 0, 0) if box is None else box, 4)
    return _Batch(
        mix=mix,
        crops=crops,
        flips=flips,
        partners=np.arange(size) if partners is None else partners,
        lam=np.full(size, lam, np.float32),
        boxes=np.tile(box.astype(np.int32), (size, 1)),
        logits=logits,
        indices=indices,
    )


def _checked(name: str, values: Any, shape: tuple[int, ...], kinds: str) -> np.ndarray:
    """Values as an array; refuses another shape or kind of dtype, and empty arrays."""
    array = _array(name, values)
    if array.shape != shape or not array.size:
        raise InputError(f"{name} have shape {array.shape}, expected {shape}")
    if array.dtype.kind not in kinds:
        expected = "integers" if kinds == "iu" else "numbers"
        raise InputError(f"{name} have dtype {array.dtype}, expected {expected}")
    return array


def _array(name: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:  # lists of different lengths
        raise InputError(f"{name} are no array ({error})") from error


def sampler_order(num_images: int, epoch: int) -> np.ndarray:
    """The order in which SRe2L's relabelling went through the images.

    `torch.utils.data.RandomSampler` with one generator for all epochs: `randperm` is a
    Fisher-Yates shuffle with the raw 32-bit numbers of MT19937, and every epoch draws a
    second permutation that it does not use (torch 1.12 and later).

    Args:
      num_images: N.
      epoch: Counted from zero.

    Returns:
      (N,) int64, a permutation.
    """
    # NumPy's legacy generator is MT19937 with the same seeding as PyTorch's.
    generator = np.random.RandomState(_SAMPLER_SEED)

    def draws() -> np.ndarray:
        return generator.randint(0, 2**32, size=num_images - 1, dtype=np.uint32)

    for _ in range(2 * epoch):
        draws()
    order = list(range(num_images))
    for index, draw in enumerate(draws().tolist()):
        other = index + draw % (num_images - index)
        order[index], order[other] = order[other], order[index]
    return np.array(order)


def replay(images: jax.Array, view: FkdView, indices: jax.Array) -> jax.Array:
    """The views that the teacher saw.

    Cropping, flipping and mixing commute with the normalisation of channels, so that
    images may be pixels or network inputs.

    Args:
      images: (N, H, W, C) float, all images.
      view: What to replay.
      indices: (B,) integers, the images to make the views of.

    Returns:
      (B, H, W, C) float32.

    Raises:
      InputError: the view is of another number of images.
    """
    if len(images) != len(view.crops):
        raise InputError(
            f"the labels are those of {len(view.crops)} images, got {len(images)} "
            "images: read the class folders with the same IPC"
        )
    parameters = (view.crops, view.flips, view.partners, view.lam, view.boxes)
    return _replay(view.mix, jnp.asarray(images), parameters, jnp.asarray(indices))


@functools.partial(jax.jit, static_argnums=0)
def _replay(
    mix: str,
    images: jax.Array,
    parameters: tuple[jax.Array, ...],
    indices: jax.Array,
) -> jax.Array:
    crops, flips, partners, lam, boxes = map(jnp.asarray, parameters)
    height, width = images.shape[1:3]
    sides = jnp.array([height, width, height, width])

    def cropped(index: jax.Array) -> jax.Array:
        # The fractions are those of whole pixels.
        box = jnp.round(crops[index] * sides).astype(jnp.int32)
        crop = augment.resized_crop(images[index].astype(jnp.float32), *box)
        return augment.flip(crop, flips[index])

    def mixed(index: jax.Array) -> jax.Array:
        image = cropped(index)
        if mix == "none":
            return image
        partner = cropped(partners[index])
        if mix == "mixup":
            return augment.mixup(image, partner, lam[index])
        return augment.cutmix(image, partner, boxes[index])

    return jax.vmap(mixed)(indices)
