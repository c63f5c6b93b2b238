"""A user's teacher: any function from images to logits.

    # my_teacher.py, used by --config.teacher.name=my_teacher:build
    def build():
        network = load_my_network()
        return lambda images: network.predict((images - 0.5) / 0.25)

`build` is called once, without arguments. What it returns is called with (B, H, W, C)
float32 NumPy pixels, nominally in [0, 1], and gives (B, num_classes) logits as NumPy or
JAX array. It normalises images itself, as in its training. It may have an attribute
`fingerprint`, a string that changes when its weights do.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from gift_jax import registry
from gift_jax.data.info import DatasetInfo
from gift_jax.teachers import base

# Probe that stands for the weights of a function without a `fingerprint`.
_PROBE_IMAGES = 16
_PROBE_NUMBERS = 4
_PROBE_DIGITS = 1e4


@dataclasses.dataclass(frozen=True, eq=False)
class CallableTeacher:
    """A user's function as a teacher.

    Attributes:
      name: "package.module:attribute", or any name for messages.
      function: Function from images to logits, see the top of this module.
      image_shape: (H, W, C) of the images it is for.
      num_classes: Number of classes that it must tell apart.

    Raises:
      InputError: it cannot be called with images.

    >>> def by_brightness(images):
    ...     brightness = images.mean(axis=(1, 2, 3))
    ...     return np.stack([1 - brightness, brightness], axis=1)
    >>> teacher = CallableTeacher("brightness", by_brightness, (8, 8, 1), 2)
    >>> teacher.logits(np.ones((1, 8, 8, 1)))
    array([[0., 1.]], dtype=float32)
    """

    name: str
    function: Callable[[np.ndarray], Any]
    image_shape: Sequence[int]
    num_classes: int

    def __post_init__(self) -> None:
        """Checks that it can be called."""
        if not callable(self.function):
            raise base.TeacherError(
                f"the teacher {self.name} is a {type(self.function).__name__}, "
                "expected a function of images that returns logits"
            )
        call = "what it returns must take one argument, images"
        what = f"the teacher {self.name}"
        registry.check_call(what, self.function, call, np.zeros(0))

    @classmethod
    def load(cls, name: str, info: DatasetInfo) -> "CallableTeacher":
        """The teacher behind "package.module:attribute".

        Args:
          name: Name of what is called without arguments and returns the function.
          info: The real dataset.

        Raises:
          InputError: it cannot be imported, or is no teacher.
        """
        build: Any = registry.find("teacher", name, {})
        call = "it is called without arguments, and returns a function of images"
        registry.check_call(f"the teacher {name}", build, call)
        return cls(name, build(), info.image_shape, info.num_classes)

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits for its code and its weights, as far as they show.

        The code is the source files of `name` and of the function; what those import is
        not seen. The weights are the function's attribute `fingerprint`, or else its
        logits of some random images, to four digits: about as exact as soft labels are
        stored, and hardly ever different on other devices.

        Raises:
          TeacherError: as `logits`.
        """
        function = self.function
        while isinstance(function, functools.partial):
            function = function.func
        modules = {str(getattr(function, "__module__", type(function).__module__))}
        module, _, attribute = self.name.partition(":")
        if attribute:
            modules.add(module)
        weights = getattr(self.function, "fingerprint", None)
        return base.fingerprint(
            {
                "code": base.code_fingerprints(modules),
                "weights": weights if isinstance(weights, str) else self._probe(),
            }
        )

    def _probe(self) -> list[str]:
        rng = np.random.default_rng(0)
        images = rng.uniform(size=(_PROBE_IMAGES, *self.image_shape))
        answer = self.logits(images).ravel()
        size = np.linalg.norm(answer) or 1.0
        numbers = rng.normal(size=(_PROBE_NUMBERS, len(answer))) @ (answer / size)
        return [f"{size:.3e}", *(f"{n:.0f}" for n in _PROBE_DIGITS * numbers)]

    def logits(self, images: base.Array) -> np.ndarray:
        """(B, num_classes) float32 for (B, H, W, C) pixels, see `base.Teacher`.

        Raises:
          TeacherError: what the function returned is of another shape, or not finite.
        """
        # A copy, as the function may write to it.
        returned = self.function(np.array(images, np.float32))
        return checked_logits(self.name, returned, len(images), self.num_classes)


def checked_logits(
    name: str, returned: Any, num_images: int, num_classes: int
) -> np.ndarray:
    """What a teacher returned as (num_images, num_classes) float32.

    Raises:
      TeacherError: it is of another shape, or not finite.
    """
    try:
        logits = np.asarray(returned)
    except (ValueError, TypeError, RuntimeError) as error:
        raise base.TeacherError(
            f"what the teacher {name} returns is no array: {error}"
        ) from error
    if not jnp.issubdtype(logits.dtype, jnp.number):
        raise base.TeacherError(
            f"the teacher {name} returns {type(returned).__name__} of dtype "
            f"{logits.dtype}, expected logits as a NumPy or JAX array"
        )
    if logits.shape != (num_images, num_classes):
        raise base.TeacherError(
            f"the teacher {name} returns shape {logits.shape} for {num_images} images "
            f"of {num_classes} classes, expected {(num_images, num_classes)}"
        )
    logits = logits.astype(np.float32, copy=False)
    if not np.isfinite(logits).all():
        raise base.TeacherError(
            f"the teacher {name} gives NaN or infinite logits: its weights are broken, "
            "or its input is scaled twice"
        )
    return logits
