"""Statistics of a teacher's layers on the real train split.

G-VBSM and EDC measure them once for every teacher, `pre_hook_fn` in the
`recover/utils.py` of their official codes: the moments of batches of augmented images,
averaged over all batches, and those of single images, averaged over each class. EDC's
code stores the patches' means of a class as variances and the reverse; here they are
not swapped.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gift_jax import streams
from gift_jax.augment import AugmentSpec
from gift_jax.augment.views import augment_image
from gift_jax.data.info import DatasetInfo
from gift_jax.data.real import RealDataset
from gift_jax.distill.recovery import statistics
from gift_jax.distill.recovery.statistics import Layer, Moments
from gift_jax.models.variables import Variables
from gift_jax.runtime.errors import InputError
from gift_jax.teachers import FlaxTeacher
from gift_jax.teachers.flax_teacher import variable_shapes

BATCH = 64  # of the official data loaders for CIFAR and Tiny-ImageNet


class RealLayer(NamedTuple):
    """What one layer is fed by real images: moments of channels, and of patches.

    Attributes:
      of_batches: Averages over batches: (C,) arrays, and for convolutions (P,) arrays.
      of_classes: Averages over each class: the same, with a first axis of classes.
    """

    of_batches: tuple[Moments, ...]
    of_classes: tuple[Moments, ...]


def patch_side(image_size: int) -> int:
    """Pixels along the side of a patch: 4, on ImageNet-1k 16."""
    return 4 if image_size <= 64 else 16


def batch_moments(
    layer: Layer, side: int, *, of_images: bool = False
) -> tuple[Moments, ...]:
    """Moments of channels, and for a convolution also of patches of its input."""
    channels = statistics.channel_moments(layer, of_images=of_images)
    if layer.running is not None:
        return (channels,)
    patches = statistics.patch_moments(layer.features, side, of_images=of_images)
    return channels, patches


def views(image_size: int) -> AugmentSpec:
    """How the real images are augmented, as in the official codes."""
    if image_size <= 64:
        return AugmentSpec(pad_crop=4 if image_size <= 32 else 8, flip=True)
    return AugmentSpec(resized_crop=0.08, flip=True)


def measure(
    teacher: FlaxTeacher,
    data: RealDataset,
    on_progress: Callable[[int], None] = lambda images: None,
) -> list[RealLayer]:
    """Reads the train split once, in batches of `BATCH`.

    Args:
      teacher: A network.
      data: The real dataset, whose classes may come in any order.
      on_progress: Called after every batch with its size.

    Returns:
      Statistics of every batch norm and convolution, in the order of the calls, on the
      host.
    """
    split, info = data.train, data.info
    order = np.random.default_rng(0).permutation(len(split))
    counts = np.bincount(split.labels, minlength=info.num_classes)
    add = jax.jit(functools.partial(_add, teacher=teacher, info=info), donate_argnums=0)
    variables = jax.device_put(teacher.variables)
    total = jax.tree.map(lambda s: jnp.zeros(s.shape), shapes(teacher, info))
    for start in range(0, len(split), BATCH):
        indices = order[start : start + BATCH]
        labels = split.labels[indices]
        batch = _Batch(
            images=split.images(indices),
            numbers=indices,
            labels=labels,
            share=np.float32(len(indices) / len(split)),
            shares_of_class=np.float32(1 / counts[labels]),
        )
        total = add(total, variables, batch)
        on_progress(len(indices))
    return jax.device_get(total)


def shapes(teacher: FlaxTeacher, info: DatasetInfo) -> list[RealLayer]:
    """Shapes of what `measure` returns, found without any image."""
    shape = jax.ShapeDtypeStruct
    batch = _Batch(
        images=shape((1, *info.image_shape), jnp.uint8),
        numbers=shape((1,), jnp.int32),
        labels=shape((1,), jnp.int32),
        share=shape((), jnp.float32),
        shares_of_class=shape((1,), jnp.float32),
    )
    part = functools.partial(_part, teacher=teacher, info=info)
    return jax.eval_shape(part, variable_shapes(teacher.model, info.image_shape), batch)


def check(
    real: Sequence[Sequence[RealLayer]],
    networks: Sequence[FlaxTeacher],
    info: DatasetInfo,
) -> None:
    """Refuses statistics that are not those of the layers of networks.

    Args:
      real: For every network what `measure` returns.
      networks: The networks, in the same order.
      info: The real dataset.

    Raises:
      InputError: there are more or fewer of them, or they have other shapes.
    """
    if len(real) != len(networks):
        names = ", ".join(network.name for network in networks)
        raise InputError(
            f"real has statistics of {len(real)} networks, expected those of {names}: "
            "give what `real_statistics.measure` returns for each"
        )
    for layers, network in zip(real, networks, strict=True):
        found = jax.tree.map(np.shape, list(layers))
        expected = jax.tree.map(np.shape, shapes(network, info))
        for number, (ours, theirs) in enumerate(itertools.zip_longest(expected, found)):
            if ours != theirs:
                raise InputError(
                    f"real has {theirs} as shapes of layer {number} of {network.name} "
                    f"on {info.name}, expected {ours}: give what "
                    "`real_statistics.measure` returns for it"
                )


class _Batch(NamedTuple):
    """Some real images, (B, S, S, C) uint8, and the share that each is of all."""

    images: Any
    numbers: Any
    labels: Any
    share: Any
    shares_of_class: Any


def _add(
    total: list[RealLayer], variables: Variables, batch: _Batch, **of_what: Any
) -> list[RealLayer]:
    return jax.tree.map(jnp.add, total, _part(variables, batch, **of_what))


def _part(
    variables: Variables, batch: _Batch, *, teacher: FlaxTeacher, info: DatasetInfo
) -> list[RealLayer]:
    """What a batch adds to the statistics."""
    side = patch_side(info.image_size)
    inputs = teacher.preprocess.apply(augmented(batch.images, batch.numbers))
    _, layers = statistics.logits_and_layers(teacher.model, variables, inputs)

    def of_classes(found: jax.Array) -> jax.Array:
        zeros = jnp.zeros((info.num_classes, *found.shape[1:]))
        return zeros.at[batch.labels].add(found * batch.shares_of_class[:, None])

    return [
        RealLayer(
            jax.tree.map(lambda m: m * batch.share, batch_moments(layer, side)),
            jax.tree.map(of_classes, batch_moments(layer, side, of_images=True)),
        )
        for layer in layers
    ]


def augmented(images: jax.Array, numbers: jax.Array) -> jax.Array:
    """Pixels in [0, 1] of one view of each image, which is always the same.

    Args:
      images: (B, S, S, C) uint8.
      numbers: (B,) places in the train split.
    """
    key, spec = streams.key(0), views(images.shape[1])

    def view(number: jax.Array, image: jax.Array) -> jax.Array:
        return augment_image(jax.random.fold_in(key, number), image, spec)

    return jax.vmap(view)(numbers, images.astype(jnp.float32) / 255)
