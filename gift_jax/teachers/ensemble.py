"""Several networks as one teacher, whose logits are the mean of theirs.

G-VBSM and EDC relabel in this way on CIFAR and Tiny-ImageNet, `relabel/utils_fkd.py`
and `train/direct_train.py` of their official codes.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gift_jax.teachers.base import TeacherError
from gift_jax.teachers.flax_teacher import FlaxTeacher

# Flax's name for entry i of `Ensemble.members`.
_MEMBER = "members_{}"


class Ensemble(nn.Module):
    """Networks that are fed the same images.

    Attributes:
      members: Networks, called as those of `models.create_model`.
    """

    members: tuple[nn.Module, ...]

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Mean logits, (B, num_classes) float32 for (B, H, W, C)."""
        logits = [member(images, train=train) for member in self.members]
        return jnp.stack(logits).mean(0)


def average(name: str, teachers: Sequence[FlaxTeacher]) -> FlaxTeacher:
    """The teacher whose logits are the mean of those of several teachers.

    Raises:
      TeacherError: their preprocessing differs.
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
    """The teachers that `average` was given for a teacher, or the teacher itself."""
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
