"""Ways to make a distilled dataset from a real one, by name."""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from gift_jax import registry
from gift_jax.distill.base import NEEDS, Distiller, make_options
from gift_jax.distill.matching.datm import Datm
from gift_jax.distill.matching.dc import Dc
from gift_jax.distill.matching.dm import Dm
from gift_jax.distill.random import Random
from gift_jax.distill.rded import Rded
from gift_jax.distill.recovery.cda import Cda
from gift_jax.distill.recovery.edc import Edc
from gift_jax.distill.recovery.gvbsm import Gvbsm
from gift_jax.distill.recovery.sre2l import Sre2l
from gift_jax.runtime.errors import InputError

__all__ = [
    "DISTILLERS",
    "Cda",
    "Datm",
    "Dc",
    "Distiller",
    "Dm",
    "Edc",
    "Gvbsm",
    "Random",
    "Rded",
    "Sre2l",
    "make_distiller",
]

#: Every distiller by name.
DISTILLERS: Mapping[str, Callable[..., Distiller]] = MappingProxyType(
    {
        "random": Random,
        "rded": Rded,
        "sre2l": Sre2l,
        "cda": Cda,
        "gvbsm": Gvbsm,
        "edc": Edc,
        "dm": Dm,
        "dc": Dc,
        "datm": Datm,
    }
)


def make_distiller(name: str, *, ipc: int, **options: Any) -> Distiller:
    """The distiller of that name.

    Args:
      name: A key of `DISTILLERS`, or "package.module:attribute".
      ipc: Images per class.
      **options: Options of the distiller.

    Raises:
      InputError: there is no distiller of that name, it has no such option, an option
        cannot be used, or it is no distiller: no dataclass, or with another `make`.

    >>> from gift_jax.data.real import load_dataset
    >>> make_distiller("random", ipc=5).make(
    ...     load_dataset("digits"), teacher=None, seed=0
    ... )
    DistilledDataset(random of digits: 50 images of shape (8, 8, 1), 10 classes, IPC 5)
    """
    kind = registry.find("distiller", name, DISTILLERS)
    known = ", ".join(["ipc", *registry.keyword_defaults(kind, without=["ipc"])])
    call = f"it takes {known}"
    registry.check_call(f"the distiller {name}", kind, call, ipc=ipc, **options)
    distiller = kind(ipc=ipc, **options)
    needs = getattr(distiller, "needs", None)
    if not callable(getattr(distiller, "make", None)) or not (
        isinstance(needs, frozenset) and needs <= NEEDS
    ):
        raise InputError(
            f"the distiller {name} has no method `make`, or `needs` is {needs!r}, "
            f"expected a frozenset of {', '.join(sorted(NEEDS))}"
        )
    if not dataclasses.is_dataclass(distiller):
        raise InputError(
            f"the distiller {name} is no dataclass: what is made is known by its "
            "fields; put @dataclasses.dataclass(frozen=True) before its class"
        )
    given = make_options(distiller)
    call = f"it is given the real dataset and {', '.join(given)}"
    what = f"`make` of the distiller {name}"
    registry.check_call(what, distiller.make, call, None, **dict.fromkeys(given))
    return distiller
