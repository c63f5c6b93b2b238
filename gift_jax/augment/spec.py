"""What a view is made of: `AugmentSpec`, hashable and JSON-able."""

import dataclasses
import math
from typing import Any

from gift_jax import registry
from gift_jax.runtime.errors import InputError

# The names in DiffAug strategies, `utils/transforms.py` of the official code.
DIFFAUG_OPERATIONS = ("color", "crop", "cutout", "flip", "rotate", "scale")
DIFFAUG_MODES = ("multiple", "single")
# The strategy of DSA and DiffAug in the codes of GIFT, DC, MTT and DATM.
DIFFAUG_STRATEGY = "color_crop_cutout_flip_scale_rotate"
MIXES = ("none", "mixup", "cutmix")


@dataclasses.dataclass(frozen=True)
class AugmentSpec:
    """The operations that make a view, in the order they are applied.

    The default leaves images as they are. The GIFT evaluator's augmentation is
    `AugmentSpec(diffaug=DIFFAUG_STRATEGY)`, with `factor=2` for RDED on ImageNet-1k
    with ResNet-18. Static under `jax.jit`; `dataclasses.asdict` and
    `AugmentSpec(**fields)` take it to JSON and back.

    Attributes:
      factor: RandomFactorResizedCrop: with probability 1 - 1 / factor^2 one cell of
        the factor x factor grid is enlarged. 1 is off.
      shuffle: ShufflePatches of RDED and EDC: the image is cut into this many vertical
        strips, which are put together in a random order; the result is then cut and put
        together in horizontal strips. 1 is off.
      resized_crop: Smallest area of RandomResizedCrop as a fraction of the image,
        aspect 3/4 to 4/3 as in torchvision. 0 is off.
      pad_crop: Zero padding in pixels before a random crop back. 0 is off.
      flip: Mirror with probability one half. The same draw as DiffAug's "flip".
      diffaug: DiffAug strategy: names of DIFFAUG_OPERATIONS joined by underscores,
        in any order. "" is off.
      diffaug_mode: "multiple" as in the GIFT evaluator and IDC: all operations, but
        only one of crop, scale and rotate; or "single" as in DSA, MTT and DATM: one
        operation, where flip still mirrors with probability one half. The operation is
        drawn per image, where these codes draw it per batch, as a view must not depend
        on its batch.
      mix: One of MIXES; the partner is drawn from the whole distilled set.
      mix_alpha: The mixing weight is drawn from Beta(mix_alpha, mix_alpha). SRe2L
        and RDED take 1 for cutmix and 0.8 for mixup.

    Raises:
      InputError: A field is out of range or names something unknown.

    >>> AugmentSpec(diffaug="colour_flip")
    Traceback (most recent call last):
    ...
    gift_jax.runtime.errors.UnknownNameError: unknown DiffAug operation 'colour' (did
    you mean 'color'?); expected one of color, crop, cutout, flip, rotate, scale
    """

    factor: int = 1
    shuffle: int = 1
    resized_crop: float = 0.0
    pad_crop: int = 0
    flip: bool = False
    diffaug: str = ""
    diffaug_mode: str = "multiple"
    mix: str = "none"
    mix_alpha: float = 1.0

    def __post_init__(self) -> None:
        """Refuses fields that no view can be made with."""
        for name, what in (("factor", "cells"), ("shuffle", "strips")):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(
                    f"AugmentSpec.{name} is {value!r}, expected a whole number of "
                    f"{what} per side, at least 1 (1 turns it off)."
                )
        if not 0 <= self.resized_crop <= 1:
            raise InputError(
                f"AugmentSpec.resized_crop is {self.resized_crop!r}, expected the "
                "smallest area as a fraction in [0, 1] (0 turns the crop off)."
            )
        if not isinstance(self.pad_crop, int) or self.pad_crop < 0:
            raise InputError(
                f"AugmentSpec.pad_crop is {self.pad_crop!r}, expected a whole number "
                "of pixels, at least 0 (0 turns the crop off)."
            )
        for name in self.diffaug_operations:
            if name not in DIFFAUG_OPERATIONS:
                raise registry.unknown_name(
                    "DiffAug operation", name, DIFFAUG_OPERATIONS
                )
        if len(set(self.diffaug_operations)) != len(self.diffaug_operations):
            raise InputError(
                f"AugmentSpec.diffaug is {self.diffaug!r}, expected every operation "
                "at most once."
            )
        if self.diffaug_mode not in DIFFAUG_MODES:
            raise registry.unknown_name(
                "DiffAug mode", self.diffaug_mode, DIFFAUG_MODES
            )
        if self.diffaug_mode == "single" and len(self.diffaug_operations) < 2:
            raise InputError(
                f"AugmentSpec.diffaug_mode is 'single', but diffaug is "
                f"{self.diffaug!r}: there are no several operations to draw one of."
            )
        if self.diffaug_mode == "single" and self.flip and "flip" in self.diffaug:
            raise InputError(
                "AugmentSpec.flip is on, and flip is among the operations of which "
                "diffaug_mode 'single' draws one: leave out either."
            )
        if self.mix not in MIXES:
            raise registry.unknown_name("mix", self.mix, MIXES)
        if not 0 < self.mix_alpha < math.inf:
            raise InputError(
                f"AugmentSpec.mix_alpha is {self.mix_alpha!r}, expected a positive "
                "finite number (1.0 draws the weight uniformly)."
            )

        if self.mix == "none" and self.mix_alpha != 1.0:
            raise InputError(
                f"AugmentSpec.mix_alpha is {self.mix_alpha!r}, but there is no mix "
                "for it to change: set mix to mixup or cutmix, or leave it out."
            )

    @property
    def label(self) -> str:
        """The operations that are on.

        >>> AugmentSpec(diffaug="crop_flip", mix="cutmix").label
        'diffaug=crop_flip-mix=cutmix'
        >>> AugmentSpec().label
        'none'
        """
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        return registry.label("", dataclasses.asdict(self), defaults)[1:] or "none"

    @property
    def recipe(self) -> dict[str, Any]:
        """The spec's part of the recipes of views.

        Later-added fields are left out where they are off, so that products made before
        are still found.
        """
        fields = dataclasses.asdict(self)
        off = {"shuffle": 1, "diffaug_mode": "multiple"}
        return {name: v for name, v in fields.items() if (name, v) not in off.items()}

    @property
    def diffaug_operations(self) -> tuple[str, ...]:
        """The names in `diffaug`."""
        return tuple(self.diffaug.split("_")) if self.diffaug else ()
