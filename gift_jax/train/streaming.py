"""Train splits that are read while they are trained on."""

import contextlib
import functools
from collections.abc import Generator, Sequence
from typing import Any

import flax.struct
import jax
import numpy as np
from jax.typing import ArrayLike

from gift_jax import augment
from gift_jax.data import image_split, loader
from gift_jax.runtime.devices import spread
from gift_jax.soft_labels import views


@functools.partial(jax.jit, static_argnums=(1, 4, 5))
def _partners(*arguments: Any) -> jax.Array:
    # Without the weights, which take much longer to draw.
    return augment.mix_partners(*arguments)[0]


class StreamedData(flax.struct.PyTreeNode):
    """Counterpart of `views.TrainData` for a split that is larger than memory.

    Attributes:
      labels: (N,) int32 hard labels.
      view_key: Typed key of the augmented views.
      split: Split that each host reads the images of its devices from.
      workers: Processes that read ahead, see `loader.read_indices`.
    """

    labels: jax.Array
    view_key: jax.Array
    split: image_split.ImageSplit = flax.struct.field(pytree_node=False)
    workers: int = flax.struct.field(pytree_node=False, default=0)

    def of_batches(
        self,
        batches: Sequence[np.ndarray],
        number: ArrayLike,
        spec: augment.AugmentSpec,
        devices: Sequence[jax.Device],
    ) -> Generator[views.TrainData]:
        """Each batch of a view, as training data with the images of that batch only.

        Args:
          batches: For each batch, (own devices, B) indices of this host's images.
          number: View number.
          spec: Augmentation of the view.
          devices: Devices of all hosts.

        Yields:
          Data for `StreamedViews`: images (own devices, 1, B, S, S, C) uint8, or (own
          devices, 2, B, S, S, C) with their mix partners, on the devices.
        """
        needed = [indices[:, None] for indices in batches]
        if spec.mix != "none":
            shape, num_images = self.split.images(range(1)).shape[1:], len(self.labels)
            every = np.arange(num_images, dtype=np.int32)
            partners = np.asarray(
                _partners(self.view_key, num_images, number, every, spec, shape)
            )
            needed = [np.stack([i, partners[i]], axis=1) for i in batches]
        # Every image once: all devices have the whole of an epoch's last, smaller
        # batch.
        distinct = [np.unique(indices) for indices in needed]
        read = loader.read_indices(self.split, distinct, workers=self.workers)
        with contextlib.closing(read):
            for indices, places, images in zip(needed, distinct, read, strict=True):
                used = spread(images[np.searchsorted(places, indices)], devices)
                yield views.TrainData(used, self.labels, self.view_key)


class StreamedViews(views.AugmentedViews):
    """Makes the images of a view of `StreamedData`, equal to those of the whole set."""

    def images(
        self, data: views.TrainData, number: ArrayLike, indices: jax.Array
    ) -> jax.Array:
        """Images of the view of that number.

        Args:
          data: Data from `StreamedData.of_batches`.
          number: View number.
          indices: (B,) indices of the images in the whole set.
        """
        partners = None
        if self.spec.mix != "none":
            partner_indices, _ = augment.mix_partners(
                data.view_key,
                len(data.labels),
                number,
                indices,
                self.spec,
                data.images.shape[-3:],
            )
            partners = partner_indices, data.images[1]
        return augment.augment_batch(
            data.view_key,
            data.images[0],
            number,
            indices,
            self.spec,
            self.normalization,
            partners=partners,
        )
