"""Train splits that are read while they are trained on."""

import dataclasses
from collections.abc import Generator, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from gift_jax import augment
from gift_jax.data import image_split, loader
from gift_jax.runtime.devices import spread
from gift_jax.runtime.errors import InputError
from gift_jax.soft_labels import views


class StreamedData(flax.struct.PyTreeNode):
    """What `views.TrainData` is, of a split that is larger than memory.

    Attributes:
      labels: (N,) int32 hard labels.
      view_key: Typed key of the augmented views.
      split: Where the images are read from, each host its own.
      workers: Processes that read ahead, see `loader.read_indices`.
    """

    labels: jax.Array
    view_key: jax.Array
    split: image_split.ImageSplit = flax.struct.field(pytree_node=False)
    workers: int = flax.struct.field(pytree_node=False, default=0)

    def of_batches(
        self, batches: Sequence[np.ndarray], devices: Sequence[jax.Device]
    ) -> Generator[views.TrainData]:
        """Each batch as training data of its own, which hold no other image.

        Args:
          batches: (own devices, B) indices of the images of this host's devices.
          devices: Devices of all hosts.

        Yields:
          Data with images (own devices, B, S, S, C) uint8, spread over the devices.
        """
        # The rest of an epoch is whole on every device.
        distinct = [np.unique(indices) for indices in batches]
        read = loader.read_indices(self.split, distinct, workers=self.workers)
        for indices, places, images in zip(batches, distinct, read, strict=True):
            images = images[np.searchsorted(places, indices)]
            yield views.TrainData(spread(images, devices), self.labels, self.view_key)


@dataclasses.dataclass(frozen=True)
class StreamedViews:
    """Makes the images of a view of a batch, equal to those of the whole set.

    Attributes:
      views: The views of the whole set; they mix no images.
    """

    views: views.AugmentedViews

    def __post_init__(self) -> None:
        """Refuses views that need more images than those of the batch."""
        if not isinstance(self.views, views.AugmentedViews) or (
            self.views.spec.mix != "none"
        ):
            raise InputError(
                f"{self.views} cannot be made of a train split that is read while it "
                "is trained on, as they take partners from the whole of it: set "
                "teacher.augment.mix to none, or import a teacher"
            )

    def __call__(
        self, data: views.TrainData, view: views.View, indices: jax.Array
    ) -> jax.Array:
        """Images of the view, (B, H, W, C) float32 network inputs.

        Args:
          data: Its images are those of the batch.
          view: Of the whole set.
          indices: (B,) places of the images in the whole set.
        """
        spec, normalization = self.views.spec, self.views.normalization
        view_key = jax.random.fold_in(data.view_key, view.number)

        def of_image(image: jax.Array, index: jax.Array) -> jax.Array:
            if normalization is not None:
                image = normalization.apply(image.astype(jnp.float32) / 255)
            return augment.augment_image(
                jax.random.fold_in(view_key, index), image, spec
            )

        return jax.vmap(of_image)(data.images, indices)
