"""Soft labels that a teacher makes while a student trains."""

import dataclasses
from collections.abc import Callable

import numpy as np

from gift_jax.soft_labels.base import LabelViews, label_in_batches
from gift_jax.soft_labels.codecs import FLOAT16, LabelCodec, encode
from gift_jax.soft_labels.views import View


@dataclasses.dataclass(frozen=True, eq=False)
class OnlineSoftLabels:
    """The teacher's logits, computed when they are requested, and not stored.

    This is what the official code does in every run. The logits are rounded as in a
    store.

    Attributes:
      label_views: From `relabel.make_label_views`.
      num_images: N.
      views: Views of every image.
      batch_size: Images in a forward pass over all devices.
      codec: Codec of the store whose labels these equal.
    """

    label_views: LabelViews
    num_images: int
    views: int
    batch_size: int
    codec: LabelCodec = FLOAT16

    def start_reading(self, view: int) -> Callable[[], View]:
        """The view, labelled before this returns."""
        rows = np.arange(self.num_images)
        logits = label_in_batches(self.label_views, view, rows, self.batch_size)
        stored = encode(self.codec, logits, view=view)
        decoded = self.codec.decode(stored, logits.shape[1])
        return lambda: View(np.int32(view), decoded)
