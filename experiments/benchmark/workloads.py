"""What is timed, and how much arithmetic it is."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend import core

from gift_jax import models


@dataclasses.dataclass(frozen=True)
class Workload:
    """One network on images of one size; batch sizes are those of the official ladder.

    Attributes:
        name: Name in the tables.
        network: A name of `gift_jax.models.MODELS`.
        image_size: Height and width.
        batch_size: Images of a step.
        num_classes: Length of the logits.
        steps: Steps of one epoch, which is timed as one.
        dtype: Type of activations, "float32" or "bfloat16".
        width: Channels of a ConvNet; None stands for the official number.
    """

    name: str
    network: str
    image_size: int
    batch_size: int
    num_classes: int
    steps: int
    dtype: str = "float32"
    width: int | None = None

    @property
    def num_images(self) -> int:
        """Images of the distilled set."""
        return self.steps * self.batch_size

    def model(self, axis_name: str | None = None) -> nn.Module:
        """The network."""
        return models.create_model(
            self.network,
            num_classes=self.num_classes,
            image_size=self.image_size,
            axis_name=axis_name,
            dtype=self.dtype,
            **({} if self.width is None else {"width": self.width}),
        )


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("ConvNet-3, 32x32, batch 50", "conv3", 32, 50, 10, 10),
        Workload("ConvNet-3, 32x32, batch 100", "conv3", 32, 100, 10, 5),
        Workload("ResNet-18, 32x32, batch 50", "resnet18_modified", 32, 50, 10, 2),
        Workload("ConvNet-4, 64x64, batch 100", "conv4", 64, 100, 200, 2),
    )
}


def find(name: str) -> Workload:
    """The workload of that name, or of "NAME, N classes"."""
    known, _, classes = name.rpartition(", ")
    if name in WORKLOADS or not classes.endswith(" classes"):
        return WORKLOADS[name]
    number = int(classes.removesuffix(" classes"))
    return dataclasses.replace(WORKLOADS[known], name=name, num_classes=number)


def training_flops(workload: Workload) -> int:
    """Useful floating-point operations of one training step of the student.

    Counts convolutions and linear layers, a multiplication and an addition each:

        forward  = sum of 2 * outputs * kernel rows * kernel columns * inputs
        training = 3 * forward - forward of the first layer

    as the gradients of the weights and of the inputs take as much as the forward
    pass each, and the images need no gradient. Norms, activations, pooling,
    augmentation, the loss and the optimizer count as nothing.
    """
    layers = _layer_flops(workload)
    return 3 * sum(layers) - layers[0]


def forward_flops(workload: Workload) -> int:
    """Useful operations of one forward pass, as of an online teacher."""
    return sum(_layer_flops(workload))


def _layer_flops(workload: Workload) -> list[int]:
    model = workload.model()
    side = workload.image_size
    images = jax.ShapeDtypeStruct((workload.batch_size, side, side, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return _products(jax.make_jaxpr(model.apply)(variables, images).jaxpr)


def _products(jaxpr: Any) -> list[int]:
    """FLOPs of every convolution and matrix product, in order."""
    found = []
    for equation in jaxpr.eqns:
        outputs = math.prod(equation.outvars[0].aval.shape)
        shapes = [v.aval.shape for v in equation.invars]
        if equation.primitive.name == "conv_general_dilated":
            features = shapes[1][equation.params["dimension_numbers"].rhs_spec[0]]
            found.append(2 * outputs * math.prod(shapes[1]) // features)
        elif equation.primitive.name == "dot_general":
            (axes, _), _ = equation.params["dimension_numbers"]
            found.append(2 * outputs * math.prod(shapes[0][axis] for axis in axes))
        elif equation.primitive.name == "cond":
            # A choice by platform, of which the last is the one for most.
            found += _products(equation.params["branches"][-1].jaxpr)
        else:
            for inner in core.jaxprs_in_params(equation.params):
                found += _products(inner)
    return found
