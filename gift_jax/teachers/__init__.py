"""Teachers: whatever gives logits for images."""

from gift_jax.teachers.base import (
    Teacher,
    TeacherError,
    TracedTeacher,
    is_traced,
)
from gift_jax.teachers.callable_teacher import CallableTeacher
from gift_jax.teachers.flax_teacher import FlaxTeacher
from gift_jax.teachers.of_classes import TeacherOfClasses
from gift_jax.teachers.torch_teacher import TorchTeacher
from gift_jax.teachers.transform import Transform, TransformedTeacher

__all__ = [
    "CallableTeacher",
    "FlaxTeacher",
    "Teacher",
    "TeacherError",
    "TeacherOfClasses",
    "TorchTeacher",
    "TracedTeacher",
    "Transform",
    "TransformedTeacher",
    "is_traced",
]
