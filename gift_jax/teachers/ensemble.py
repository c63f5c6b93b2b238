"""Several networks as one teacher, whose logits are the mean of theirs.

So G-VBSM and EDC relabel on CIFAR and Tiny-ImageNet, `relabel/utils_fkd.py` and
`train/direct_train.py` of their official codes.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gift_jax.teachers.base import TeacherError
from gift_jax.teachers.flax_teacher import FlaxTeacher

# What Flax calls number i of `Ensemble.members`.
_MEMBER = "members_{}"


class Ensemble(nn.Module):
    """Networks that are fed the same images.

    Attributes:
      members: Called as those of `models.create_model`.
    """

    members: tuple[nn.Module, ...]

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Mean logits, (B, num_classes) float32 for (B, H, W, C)."""
        logits = [member(images, train=train) for member in self.members]
        return jnp.stack(logits).mean(0)


def average(name: str, teachers: Sequence[FlaxTeacher]) -> FlaxTeacher:
    """The teacher that answers with the mean logits of some.

    Raises:
      TeacherError: they are not fed the same.
    """
    first = teachers[0]
    if any(teacher.preprocess != first.preprocess for teacher in teachers):
        raise TeacherError(f"the teachers of {name} have different channel statistics")
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for number, teacher in enumerate(teachers):
        for kind, of_member in teacher.variables.items():
            if of_member:
                variables[kind][_MEMBER.format(number)] = of_member
    model = Ensemble(tuple(teacher.model for teacher in teachers))
    return FlaxTeacher(name, model, variables, first.preprocess)


def members(teacher: FlaxTeacher) -> list[FlaxTeacher]:
    """The teachers behind one, by itself or of `average`."""
    model = teacher.model
    if not isinstance(model, Ensemble):
        return [teacher]
    return [
        FlaxTeacher(
            f"{teacher.name}[{number}]",
            member,
            {
                kind: of_all.get(_MEMBER.format(number), {})
                for kind, of_all in teacher.variables.items()
            },
            teacher.preprocess,
        )
        for number, member in enumerate(model.members)
    ]
