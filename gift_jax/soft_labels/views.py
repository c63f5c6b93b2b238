"""What a student sees: the distilled images on the devices, and views of them."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gift_jax import augment, registry
from gift_jax.data import preprocess
from gift_jax.distilled.dataset import DistilledDataset, as_uint8
from gift_jax.soft_labels import fkd
from gift_jax.streams import Purpose, stream_key


class TrainData(flax.struct.PyTreeNode):
    """All that a training reads, resident on every device.

    Attributes:
      images: (N, H, W, C) network inputs in float32, or pixels in uint8.
      labels: (N,) int32 hard labels.
      view_key: Typed key of the augmented views; the soft labels belong to it.
    """

    images: jax.Array
    labels: jax.Array
    view_key: jax.Array

    def __repr__(self) -> str:
        return f"TrainData(images {np.shape(self.images)})"


def train_data(
    dataset: DistilledDataset, seed: int
) -> tuple[TrainData, preprocess.Normalization | None]:
    """The arrays of a distilled dataset as a training keeps them on devices.

    Args:
      dataset: The distilled dataset.
      seed: Seed of the augmented views.

    Returns:
      The arrays, and the normalisation to apply to the images where they are kept
      as 8-bit pixels, a quarter of the memory of floats; else None.

    >>> from gift_jax.data.real import load_dataset
    >>> from gift_jax.distill import make_distiller
    >>> random = make_distiller("random", ipc=1)
    >>> made = random.make(load_dataset("digits"), teacher=None, seed=0)
    >>> train_data(made, seed=0)[0]
    TrainData(images (10, 8, 8, 1))
    """
    images, normalization = None, None
    if isinstance(dataset.preprocess, preprocess.Normalization):
        images, normalization = as_uint8(dataset.images), dataset.preprocess
    if images is None:
        images, normalization = dataset.inputs(), None
    data = TrainData(
        images=jnp.asarray(images),
        labels=jnp.asarray(dataset.labels),
        view_key=stream_key(seed, Purpose.VIEWS),
    )
    return data, normalization


class View(flax.struct.PyTreeNode):
    """One augmented view of all images, and its soft labels.

    The images of a view are not held: they are made anew from its number.

    Attributes:
      number: Scalar int32.
      logits: (N, num_classes) float; None where hard labels are trained on.
      progress: Scalar float32, the fraction of the training that is done; filled in by
        `train_epochs`.
    """

    number: ArrayLike
    logits: jax.Array | np.ndarray | None
    progress: ArrayLike = 0.0


# Which labels of mixed pictures are mixed, see `AugmentedViews`.
LABEL_MIXES = ("none", "hard", "both")


class Mix(NamedTuple):
    """Labels of the partners that are mixed into images, and the images' own weights.

    With the weight w, the loss of a mixed picture is w * loss(own labels) + (1 - w) *
    loss(these labels), as in mixup and CutMix.

    Attributes:
      logits: (B, classes) soft labels; None where hard labels are trained on.
      labels: (B,) int32 hard labels.
      weights: (B,) float32 in [0, 1], of the images' own labels.
    """

    logits: jax.Array | None
    labels: jax.Array
    weights: jax.Array


class ViewImages(Protocol):
    """Makes the images of a view. Hashable, as it is static in compiled functions.

    Views of every kind are Flax structs with logits and progress; their other fields
    are known only to what makes their images.
    """

    def __call__(self, data: TrainData, view: Any, indices: jax.Array) -> jax.Array:
        """Images of the view, (B, H, W, C) float32 network inputs."""

    def mix(self, data: TrainData, view: Any, indices: jax.Array) -> Mix | None:
        """Labels that are mixed into those of the view; None where none are."""

    def __hash__(self) -> int:
        """Hash of all that the images depend on."""


@dataclasses.dataclass(frozen=True)
class AugmentedViews:
    """Makes the images of a `View`. Hashable, as it is static in compiled functions.

    Attributes:
      spec: The augmentation.
      normalization: Applied to images that are kept as pixels.
      label_mix: One of `LABEL_MIXES`: which labels belong to unmixed images, and are
        therefore mixed as the pictures are. "none": the soft label is the teacher's of
        the mixed picture, and the hard label, where a loss uses both, stays that of the
        image that is mixed into, as in G-VBSM and EDC. "hard": the hard label is mixed.
        "both": the soft label belongs to the unmixed image, and is mixed too. Without
        soft labels the hard ones are always mixed.

    Raises:
      UnknownNameError: `label_mix` is none of them.
    """

    spec: augment.AugmentSpec
    normalization: preprocess.Normalization | None
    label_mix: str = "none"

    def __post_init__(self) -> None:
        """Checks `label_mix`."""
        _check_label_mix(self.label_mix, LABEL_MIXES)

    def __call__(self, data: TrainData, view: View, indices: jax.Array) -> jax.Array:
        """Images of the view, (B, H, W, C) float32 network inputs."""
        return self.images(data, view.number, indices)

    def images(
        self, data: TrainData, number: ArrayLike, indices: jax.Array
    ) -> jax.Array:
        """Images of the view of that number."""
        return augment.make_views(
            data.view_key, data.images, number, indices, self.spec, self.normalization
        )

    def mix(self, data: TrainData, view: View, indices: jax.Array) -> Mix | None:
        """Labels that are mixed into those of the view; None where none are."""
        of_hard = self.label_mix != "none" or view.logits is None
        if self.spec.mix == "none" or not of_hard:
            return None
        partners, weights = augment.mix_partners(
            data.view_key,
            len(data.labels),
            view.number,
            indices,
            self.spec,
            data.images.shape[-3:],
        )
        labelled = partners if self.label_mix == "both" else indices
        logits = None if view.logits is None else view.logits[labelled]
        return Mix(logits, data.labels[partners], weights)


@dataclasses.dataclass(frozen=True)
class ReplayedViews:
    """Makes the images of an FKD view, which others have drawn and labelled.

    Attributes:
      normalization: Applied to images that are kept as pixels.
      label_mix: "none" or "hard", see `AugmentedViews`.

    Raises:
      UnknownNameError: `label_mix` is neither.
    """

    normalization: preprocess.Normalization | None
    label_mix: str = "none"

    def __post_init__(self) -> None:
        """Checks `label_mix`; soft labels are those of the mixed pictures."""
        _check_label_mix(self.label_mix, ("none", "hard"))

    def __call__(
        self, data: TrainData, view: fkd.FkdView, indices: jax.Array
    ) -> jax.Array:
        """Images of the view, (B, H, W, C) float32 network inputs."""
        replayed = fkd.replay(data.images, view, indices)
        if self.normalization is None:
            return replayed
        # Normalisation commutes with cropping, flipping and mixing.
        return self.normalization.apply(replayed / 255)

    def mix(self, data: TrainData, view: fkd.FkdView, indices: jax.Array) -> Mix | None:
        """Hard labels that are mixed into those of the view; None where none are."""
        if self.label_mix == "none" or view.mix == "none":
            return None
        weights = jnp.asarray(view.lam)[indices]
        if view.mix == "cutmix":
            top, left, bottom, right = jnp.asarray(view.boxes)[indices].T
            height, width = data.images.shape[1:3]
            weights = 1 - (bottom - top) * (right - left) / (height * width)
        partners = jnp.asarray(view.partners)[indices]
        return Mix(view.logits[indices], data.labels[partners], weights)


def _check_label_mix(label_mix: str, known: Sequence[str]) -> None:
    if label_mix not in known:
        raise registry.unknown_name("label_mix", label_mix, known)
