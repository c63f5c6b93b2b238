"""Ways to make a distilled dataset from a real one, by name."""

import inspect
from collections.abc import Callable

from gift_jax import registry
from gift_jax.distill.random import make_random
from gift_jax.distill.rded import make_rded
from gift_jax.distilled.dataset import DistilledDataset

Method = Callable[..., DistilledDataset]

METHODS: dict[str, Method] = {"random": make_random, "rded": make_rded}


def get_method(name: str) -> Method:
    """Looks up a method by name.

    Returns:
      A function of a `RealDataset`, then of a teacher's `score` if
      `needs_teacher(name)`, and of keywords, among them `ipc` and `seed`.

    Raises:
      ValueError: an unknown name; the message lists the known ones.
    """
    if name not in METHODS:
        raise registry.unknown_name("distillation method", name, METHODS)
    return METHODS[name]


def needs_teacher(name: str) -> bool:
    """Whether a method takes a teacher's `score` as its second argument."""
    return "score" in inspect.signature(get_method(name)).parameters
