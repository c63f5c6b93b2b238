"""Keyed image augmentation: a view is a pure function of (key, view, image index).

`operations` holds what is done to one image when every parameter is given,
`spec` says which operations make a view, and `views` draws their parameters.
Images are NHWC, already normalised, so that a fill of zero is the dataset mean.
"""

from gift_jax.augment.operations import (
    brightness,
    contrast,
    cutmix,
    cutout,
    factor_crop,
    flip,
    mixup,
    pad_crop,
    resized_crop,
    saturation,
    shuffle_strips,
    warp,
)
from gift_jax.augment.spec import (
    DIFFAUG_OPERATIONS,
    DIFFAUG_STRATEGY,
    MIXES,
    AugmentSpec,
)
from gift_jax.augment.views import (
    augment_batch,
    augment_image,
    make_views,
    mix_partners,
)

__all__ = [
    "DIFFAUG_OPERATIONS",
    "DIFFAUG_STRATEGY",
    "MIXES",
    "AugmentSpec",
    "augment_batch",
    "augment_image",
    "brightness",
    "contrast",
    "cutmix",
    "cutout",
    "factor_crop",
    "flip",
    "make_views",
    "mix_partners",
    "mixup",
    "pad_crop",
    "resized_crop",
    "saturation",
    "shuffle_strips",
    "warp",
]
