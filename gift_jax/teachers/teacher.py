"""The teacher: trained here or imported, and stored."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gift_jax import losses
from gift_jax.data import preprocess
from gift_jax.runtime import hosts
from gift_jax.train import checkpoint

VARIABLES_DIRECTORY = "variables"


class TeacherError(ValueError):
    """The teacher does not fit the data that it is to label."""


@dataclasses.dataclass(frozen=True, eq=False)
class Teacher:
    """A trained network, what it must be fed, and how good it is.

    Attributes:
      name: Model name, as in `models.create_model`.
      model: The network.
      variables: Its parameters and batch statistics.
      transform: From pixels to its inputs.
      top1: Accuracy on the real test split, in percent.
      fingerprint: Of its product, for the recipes of what it labels.
    """

    name: str
    model: nn.Module
    variables: Any
    transform: preprocess.Preprocess
    top1: float
    fingerprint: str

    def logits(
        self, variables: Any, inputs: jax.Array, transform: preprocess.Preprocess
    ) -> jax.Array:
        """Logits for images that were preprocessed for a student.

        Args:
          variables: The teacher's variables, an argument so that compiled
            functions do not hold them as constants.
          inputs: (B, H, W, C) float.
          transform: The student's preprocessing, which is undone if the
            teacher's is another.

        Returns:
          (B, num_classes) float32.
        """
        if transform is not self.transform and transform != self.transform:
            inputs = self.transform.apply(transform.invert(inputs))
        return jnp.asarray(self.model.apply(variables, inputs, train=False))


def make_score(teacher: Teacher) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The teacher's cross-entropy, by which RDED chooses crops.

    Returns:
      `score(pixels, labels)` -> (B,) float32 for (B, H, W, C) pixels in [0, 1] and
      (B,) integer labels.
    """

    @jax.jit
    def cross_entropy(variables: Any, pixels: jax.Array, labels: jax.Array) -> Any:
        inputs = teacher.transform.apply(pixels)
        logits = jnp.asarray(teacher.model.apply(variables, inputs, train=False))
        return losses.get_loss("ce")(logits, logits, labels)

    variables = jax.device_put(teacher.variables)
    return lambda pixels, labels: np.asarray(cross_entropy(variables, pixels, labels))


def save_teacher(directory: pathlib.Path, variables: Any) -> None:
    """Writes a teacher's variables with Orbax, on the primary host."""
    if hosts.is_primary():
        checkpoint.save_variables(directory / VARIABLES_DIRECTORY, variables)


def load_teacher(
    directory: pathlib.Path, model: nn.Module, image_shape: Sequence[int]
) -> Any:
    """Reads what `save_teacher` wrote.

    Raises:
      checkpoint.CheckpointMismatchError: it belongs to another model.
    """
    shapes = variable_shapes(model, image_shape)
    return checkpoint.load_variables(directory / VARIABLES_DIRECTORY, like=shapes)


def variable_shapes(model: nn.Module, image_shape: Sequence[int]) -> Any:
    """Shapes of the variables of a model for images (H, W, C)."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    shapes = jax.eval_shape(
        lambda key, x: model.init(key, x, train=False), jax.random.key(0), images
    )
    return {"batch_stats": {}, **shapes}
