"""The protocol of teachers: whatever gives logits for images."""

import hashlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeGuard

import jax
import numpy as np

from gift_jax import registry
from gift_jax.data.preprocess import Preprocess
from gift_jax.runtime.errors import InputError

Array = np.ndarray | jax.Array

# Images that are given to a teacher at a time.
BATCH_SIZE = 256


class TeacherError(InputError):
    """The teacher does not fit the data that it is to label, or is no teacher."""


class Teacher(Protocol):
    """Labels images."""

    @property
    def name(self) -> str:
        """Name in file names, rows of results and messages."""

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that stand for its weights and its code.

        Its labels are found again by them.
        """

    def logits(self, images: Array) -> Array:
        """Logits of images; its own preprocessing is part of it.

        Args:
          images: (B, H, W, C) float32 pixels, nominally in [0, 1]: augmented views may
            lie outside.

        Returns:
          (B, num_classes) float32.
        """


class TracedTeacher(Teacher, Protocol):
    """A teacher that JAX compiles into larger programs, over devices."""

    @property
    def variables(self) -> Any:
        """Its weights, which are arguments of those programs."""

    def apply(
        self, variables: Any, inputs: jax.Array, transform: Preprocess
    ) -> jax.Array:
        """Logits of images that were preprocessed for a student.

        Args:
          variables: Its variables.
          inputs: (B, H, W, C) float.
          transform: The student's preprocessing, which is undone if the teacher's is
            another.

        Returns:
          (B, num_classes) float32.
        """


def is_traced(teacher: Teacher) -> TypeGuard[TracedTeacher]:
    """Whether a teacher is a `TracedTeacher`, or wraps one."""
    return hasattr(teacher, "variables") and hasattr(teacher, "apply")


def logits_in_batches(
    teacher: Teacher, batches: Iterable[np.ndarray]
) -> Iterator[np.ndarray]:
    """Logits of many images, of which one batch is held at a time.

    Args:
      teacher: The teacher, which sees batches of `BATCH_SIZE` only and so compiles
        once.
      batches: Batches of at most `BATCH_SIZE` images (B, H, W, C) float32 in [0, 1].

    Yields:
      (B, num_classes) for every batch.
    """
    for images in batches:
        missing = BATCH_SIZE - len(images)
        padded = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
        yield np.asarray(teacher.logits(padded))[: len(images)]


def fingerprint(content: Any) -> str:
    """16 hexadecimal digits that stand for the contents of a tree.

    Args:
      content: A tree of arrays, numbers and strings; their names count, too.

    >>> fingerprint({"a": np.zeros(3)}) == fingerprint({"a": np.zeros((3, 1))})
    False
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(content):
        array = np.asarray(leaf)
        name = jax.tree_util.keystr(path)
        digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def code_fingerprints(modules: Iterable[str]) -> list[str]:
    """Fingerprints of the source files of modules that are not this project's.

    Args:
      modules: Names of modules; those that are not imported are left out.
    """
    found = {
        registry.code_fingerprint(f"{name}:_")
        for name in modules
        if name in sys.modules and name.partition(".")[0] != "gift_jax"
    }
    return sorted(filter(None, found))
