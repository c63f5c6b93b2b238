"""A teacher from a checkpoint, in one call."""

from pathlib import Path
from typing import Any

from gift_jax import models, registry
from gift_jax.data.preprocess import Preprocess
from gift_jax.runtime.errors import InputError
from gift_jax.teachers.flax_teacher import FlaxTeacher
from gift_jax.torch_io import recognition, torch_import


def load_teacher(
    checkpoint: str | Path,
    *,
    num_classes: int,
    image_size: int,
    preprocess: Preprocess,
    model: str = recognition.AUTO,
    **options: Any,
) -> FlaxTeacher:
    """A teacher from a PyTorch checkpoint, read without PyTorch.

    Args:
      checkpoint: Path of the checkpoint.
      num_classes: C.
      image_size: Side of the images.
      preprocess: Preprocessing of pixels to the inputs it was trained with.
      model: Name of the network, as in `models.create_model`; by default it is
        recognised from the tensors.
      **options: Options of the network, if it is named.

    Raises:
      FileNotFoundError: there is no such file.
      InputError: it is no checkpoint, or of another network, or options are given
        without a network.

    >>> from gift_jax.data.info import CIFAR
    >>> teacher = load_teacher(  # doctest: +SKIP
    ...     "resnet20.th", num_classes=10, image_size=32, preprocess=CIFAR
    ... )
    >>> teacher.name  # doctest: +SKIP
    'resnet20'
    """
    tensors = torch_import.open_checkpoint(checkpoint)
    if model == recognition.AUTO:
        if options:
            raise InputError(
                f"{', '.join(options)} given without a network: name it by model, or "
                "leave them out, as the tensors tell them"
            )
        model, options = recognition.recognise(
            tensors, tensors.origin, image_size=image_size
        )
    shape = {"num_classes": num_classes, "image_size": image_size}
    variables = torch_import.import_torch(tensors, model=model, **shape, **options)
    network = models.create_model(model, **shape, **options)
    name = registry.label(model, options, models.model_options(model))
    return FlaxTeacher(name, network, variables, preprocess)
