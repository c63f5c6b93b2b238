"""A teacher that is a Flax network, and its weights on disk."""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gift_jax.data.preprocess import Preprocess
from gift_jax.models import variables as variables_lib
from gift_jax.runtime import checksums, hosts
from gift_jax.teachers import base

VARIABLES_DIRECTORY = "variables"


@dataclasses.dataclass(frozen=True, eq=False)
class FlaxTeacher:
    """A network with its weights and its preprocessing.

    Attributes:
      name: Name in file names, rows of results and messages.
      model: Applied as `model.apply(variables, inputs, train=False)`.
      variables: Its parameters and batch statistics.
      preprocess: Preprocessing of pixels to its inputs.

    >>> from gift_jax import models
    >>> from gift_jax.data import Normalization
    >>> model = models.create_model("conv1", num_classes=10, image_size=8, width=4)
    >>> images = jnp.zeros((2, 8, 8, 1))
    >>> variables = model.init(jax.random.key(0), images, train=False)
    >>> norm = Normalization(mean=(0.3,), std=(0.4,))
    >>> FlaxTeacher("conv1", model, variables, norm).logits(images).shape
    (2, 10)
    """

    name: str
    model: nn.Module
    variables: Any
    preprocess: Preprocess

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits for weights, network, its code and preprocessing."""
        # The axis that batch norm averages over in training, and addresses of functions
        # in memory, do not matter.
        definition = re.sub(r"\n *axis_name = .*| at 0x[0-9a-f]+", "", repr(self.model))
        return base.fingerprint(
            {
                "network": definition,
                "code": base.code_fingerprints([type(self.model).__module__]),
                "preprocess": {
                    "kind": type(self.preprocess).__name__,
                    **dataclasses.asdict(self.preprocess),
                },
                "variables": self.variables,
            }
        )

    def logits(self, images: base.Array) -> jax.Array:
        """(B, num_classes) float32 for (B, H, W, C) pixels, see `base.Teacher`."""
        return self._predict(images)

    @functools.cached_property
    def _predict(self) -> Callable[[base.Array], jax.Array]:
        program = _program(self.model, self.preprocess)
        return functools.partial(program, jax.device_put(self.variables))

    def apply(
        self, variables: Any, inputs: jax.Array, transform: Preprocess
    ) -> jax.Array:
        """Logits of images that were preprocessed for a student, as `TracedTeacher`."""
        if transform is not self.preprocess and transform != self.preprocess:
            inputs = self.preprocess.apply(transform.invert(inputs))
        return jnp.asarray(self.model.apply(variables, inputs, train=False))


# Few, as a program for whitened images holds the whitening.
@functools.lru_cache(maxsize=8)
def _program(
    model: nn.Module, preprocess: Preprocess
) -> Callable[[Any, base.Array], jax.Array]:
    """Compiled logits, the same function for all weights of a network."""

    @jax.jit
    def predict(variables: Any, pixels: jax.Array) -> jax.Array:
        inputs = preprocess.apply(pixels)
        return jnp.asarray(model.apply(variables, inputs, train=False))

    return predict


def save_teacher(directory: pathlib.Path, variables: Any) -> None:
    """Writes a teacher's variables with Orbax, on the primary host.

    Raises:
      CheckpointError: they cannot be written.
    """
    if hosts.is_primary():
        variables_lib.save_variables(directory / VARIABLES_DIRECTORY, variables)
        checksums.seal(directory / VARIABLES_DIRECTORY)


def load_teacher(
    directory: pathlib.Path, model: nn.Module, image_shape: Sequence[int]
) -> Any:
    """Reads what `save_teacher` wrote.

    Raises:
      CheckpointError: it is damaged.
      CheckpointMismatchError: it belongs to another model.
    """
    try:
        # Teachers of earlier versions have none.
        if (directory / VARIABLES_DIRECTORY / checksums.FILE).exists():
            checksums.verify(directory / VARIABLES_DIRECTORY)
    except checksums.DamagedError as error:
        raise variables_lib.CheckpointError(
            f"{directory} is damaged: {error}; delete it to have it made anew"
        ) from error
    shapes = variable_shapes(model, image_shape)
    return variables_lib.load_variables(directory / VARIABLES_DIRECTORY, like=shapes)


def variable_shapes(model: nn.Module, image_shape: Sequence[int]) -> Any:
    """Shapes of the variables of a model for images (H, W, C)."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    shapes = jax.eval_shape(
        lambda key, x: model.init(key, x, train=False), jax.random.key(0), images
    )
    return {"batch_stats": {}, **shapes}
