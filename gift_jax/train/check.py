"""Checks the inputs of a training before it begins, as JAX clamps wrong indices."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gift_jax.runtime.errors import InputError
from gift_jax.soft_labels.base import SoftLabels
from gift_jax.soft_labels.fixed import FixedSoftLabels
from gift_jax.soft_labels.hard import SoftHardSoft
from gift_jax.train.epochs import Data
from gift_jax.train.step import TrainState
from gift_jax.train.streaming import StreamedData


def check_fits(state: TrainState, data: Data, soft_labels: SoftLabels | None) -> None:
    """Refuses images, labels and soft labels that do not belong together.

    Args:
      state: State of a student, whose outputs are the classes.
      data: Images and hard labels.
      soft_labels: Soft labels of every view, if any.

    Raises:
      InputError: there are no images, the hard labels are not one class per image, or
        the soft labels are of other images or classes.
    """
    if isinstance(data, StreamedData):  # its split has checked the labels
        return
    num_images = len(data.images)
    if not num_images:
        raise InputError("there are no images to train on")
    classes = num_classes(state.model, state.variables, data.images.shape[1:])
    check_labels(np.asarray(data.labels), num_images, classes)
    if isinstance(soft_labels, SoftHardSoft):
        soft_labels = soft_labels.soft
    if isinstance(soft_labels, FixedSoftLabels):
        _check_logits(soft_labels, num_images, classes)
    labelled = getattr(soft_labels, "num_images", num_images)
    if labelled != num_images:
        raise InputError(
            f"there are {num_images} images, but soft labels of {labelled}: expected "
            "those of the same images, in the same order"
        )


def num_classes(
    model: nn.Module, variables: Mapping[str, Any], image_shape: tuple[int, ...]
) -> int:
    """Number of classes of a network, by the shape of its logits; nothing is computed.

    Args:
      model: Applied as `model.apply(variables, images, train=False)`.
      variables: Its parameters and batch statistics.
      image_shape: (H, W, C).
    """
    apply = functools.partial(model.apply, train=False)
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return jax.eval_shape(apply, variables, images).shape[-1]


def check_labels(labels: np.ndarray, num_images: int, classes: int) -> None:
    """Refuses hard labels that are not one class per image.

    Args:
      labels: Expected to be (num_images,) integers in [0, classes).
      num_images: Number of images.
      classes: Number of classes of the network.

    Raises:
      InputError: the labels are of another shape, type or range.
    """
    if labels.shape != (num_images,) or labels.dtype.kind not in "iu":
        raise InputError(
            f"labels are {labels.dtype} of shape {labels.shape}, expected integers of "
            f"shape ({num_images},), one for each of the {num_images} images"
        )
    if num_images and not 0 <= labels.min() <= labels.max() < classes:
        raise InputError(
            f"labels range over [{labels.min()}, {labels.max()}], expected classes in "
            f"[0, {classes - 1}]: the network tells {classes} apart"
        )


def _check_logits(soft_labels: FixedSoftLabels, images: int, classes: int) -> None:
    logits = soft_labels.logits
    if logits.ndim not in (2, 3) or logits.shape[-2:] != (images, classes):
        raise InputError(
            f"soft labels have the shape {logits.shape}, expected (N, C) or "
            f"(views, N, C) with N = {images} images and C = {classes}, the outputs "
            "of the student"
        )
    if logits.ndim == 3 and len(logits) < soft_labels.views:
        raise InputError(
            f"soft labels are of {len(logits)} views, but views is "
            f"{soft_labels.views}: expected at most as many"
        )
