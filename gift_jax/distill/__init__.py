"""Ways to make a distilled dataset from a real one, by name."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from gift_jax import registry
from gift_jax.distill.base import NEEDS, Distiller
from gift_jax.distill.random import Random
from gift_jax.distill.rded import Rded
from gift_jax.runtime.errors import InputError

__all__ = ["DISTILLERS", "Distiller", "Random", "Rded", "make_distiller"]

#: Every distiller by name: what the modules here call `DISTILLER`.
DISTILLERS: Mapping[str, Callable[..., Distiller]] = registry.of_modules(
    __name__, "DISTILLER"
)


def make_distiller(name: str, *, ipc: int, **options: Any) -> Distiller:
    """The distiller of that name.

    Args:
      name: A key of `DISTILLERS`, or "package.module:attribute" of what is called with
        `ipc` and the options.
      ipc: Images per class.
      **options: Its own options.

    Raises:
      InputError: there is none of that name, it has no such option, an option cannot
        be used, or it is no distiller.
    """
    kind = registry.find("distillation method", name, DISTILLERS)
    try:
        inspect.signature(kind).bind(ipc=ipc, **options)
    except TypeError as error:
        known = ", ".join(["ipc", *registry.keyword_defaults(kind, without=["ipc"])])
        raise InputError(
            f"the distiller {name} cannot be made ({error}); it takes {known}"
        ) from error
    distiller = kind(ipc=ipc, **options)
    needs = getattr(distiller, "needs", None)
    if not callable(getattr(distiller, "make", None)) or not isinstance(
        needs, frozenset | set
    ):
        raise InputError(
            f"the distiller {name} made a {type(distiller).__name__} without a method "
            "`make` or a set `needs`, expected a Distiller of gift_jax.distill.base"
        )
    if not needs <= NEEDS:
        raise InputError(
            f"the distiller {name} needs {', '.join(sorted(needs))}, expected some of "
            f"{', '.join(sorted(NEEDS))}"
        )
    return distiller
