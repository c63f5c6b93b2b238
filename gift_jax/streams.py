"""Random keys by purpose: no two uses of a seed share a stream."""

import enum

import jax

# Whatever JAX's default is: `rbg`, faster on TPUs, draws for a whole batch from the
# first of its keys, so that a view would depend on the images beside it.
IMPLEMENTATION = "threefry2x32"


class Purpose(enum.IntEnum):
    """What a key is for. Renumbering changes every result of every seed."""

    TEACHER_INIT = 0
    TEACHER_ORDER = 1
    TEACHER_VIEWS = 2
    TEACHER_DROPOUT = 3
    VIEWS = 4
    STUDENT_INIT = 5
    STUDENT_ORDER = 6
    STUDENT_DROPOUT = 7
    DISTILLATION = 8
    EXPERT = 9
    TEACHER_LABEL_NOISE = 10


def key(seed: int) -> jax.Array:
    """A typed key of a seed."""
    return jax.random.key(seed, impl=IMPLEMENTATION)


def stream_key(seed: int, purpose: Purpose) -> jax.Array:
    """The typed key of one purpose.

    Args:
      seed: Seed of the config, or of a student.
      purpose: What the key is for. (Splitting the key of a seed is not enough: the
        teacher and a student of the same seed would start from the same weights.)
    """
    return jax.random.fold_in(key(seed), int(purpose))
