"""The transform that a teacher was evaluated with: resize, then crop the centre."""

import dataclasses
import functools
from typing import Any, cast

import jax

from gift_jax.data.preprocess import Preprocess
from gift_jax.runtime.errors import InputError
from gift_jax.teachers import base
from gift_jax.teachers.flax_teacher import FlaxTeacher


@dataclasses.dataclass(frozen=True)
class Transform:
    """`Resize(resize)` and `CenterCrop(crop)` of torchvision, on square images.

    RDED's observers for CIFAR are evaluated with 36 and 32.

    Attributes:
      resize: Side that images are resized to, None to leave them.
      crop: Side of the centre that is kept, None for all.
    """

    resize: int | None
    crop: int | None

    def __post_init__(self) -> None:
        """Raises InputError for sides below 1, or a crop that is too large."""
        for name in ("resize", "crop"):
            side = getattr(self, name)
            if side is not None and side < 1:
                raise InputError(f"teacher.{name} is {side}, expected at least 1")
        if self.resize and self.crop and self.crop > self.resize:
            raise InputError(
                f"teacher.crop is {self.crop}, which does not lie in images of "
                f"teacher.resize {self.resize}"
            )

    def __bool__(self) -> bool:
        """Whether it changes anything."""
        return self.resize is not None or self.crop is not None

    def side(self, image_size: int) -> int:
        """Side of transformed images, for images of side `image_size`."""
        return self.crop or self.resize or image_size

    @functools.partial(jax.jit, static_argnums=0)
    def apply(self, images: jax.Array) -> jax.Array:
        """(B, H, W, C) -> (B, side, side, C), bilinear and antialiased as torchvision.

        Resized pixels are not rounded to 8 bits. Neither does torchvision round those
        of tensors; it does those of Pillow's images.

        Raises:
          InputError: the crop is larger than the images.
        """
        if self.resize:
            shape = (len(images), self.resize, self.resize, images.shape[-1])
            images = jax.image.resize(images, shape, "linear", antialias=True)
        if self.crop:
            if self.crop > images.shape[1]:
                raise InputError(
                    f"teacher.crop is {self.crop}, which does not lie in images of "
                    f"side {images.shape[1]}: set teacher.resize"
                )
            start = round((images.shape[1] - self.crop) / 2)
            stop = start + self.crop
            images = images[:, start:stop, start:stop]
        return images


@dataclasses.dataclass(frozen=True, eq=False)
class TransformedTeacher:
    """A teacher that sees all images through a transform.

    Attributes:
      teacher: The teacher.
      transform: Transform that images pass first.
    """

    teacher: base.Teacher
    transform: Transform

    @property
    def name(self) -> str:
        """The teacher's name."""
        return self.teacher.name

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits for the teacher and the transform."""
        transform = repr(self.transform)
        return base.fingerprint([self.teacher.fingerprint, transform])

    def logits(self, images: base.Array) -> base.Array:
        """(B, num_classes) float32 for (B, H, W, C) pixels, see `base.Teacher`."""
        return self.teacher.logits(self.transform.apply(images))

    @property
    def variables(self) -> Any:
        """The teacher's variables; an AttributeError where JAX cannot trace it."""
        return cast(FlaxTeacher, self.teacher).variables

    def apply(
        self, variables: Any, inputs: jax.Array, transform: Preprocess
    ) -> jax.Array:
        """(B, num_classes) float32, see `base.TracedTeacher`."""
        teacher = cast(FlaxTeacher, self.teacher)
        seen = self.transform.apply(transform.invert(inputs))
        own = teacher.preprocess
        return teacher.apply(variables, own.apply(seen), own)
