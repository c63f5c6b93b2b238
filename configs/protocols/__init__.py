"""Published protocols: how students are trained on distilled images.

    python -m gift_jax.main --config=configs/cifar10.py:protocol=rded --workdir=DIR

A protocol is a function of its `Setting` that gives fields of a config with their
values; it lies in a module of its own, which says where each number is from. It says
how students are trained and on which labels, and leaves the real dataset, the images,
the networks and the seeds to the config, unless its authors fix one of them. Other
options behind the colon win over it. docs/protocols.md has what each sets, and where
they differ from their code.
"""

from collections.abc import Callable
from typing import Any

from gift_jax import registry
from gift_jax.configs.protocols import (
    best,
    datm,
    ddranking,
    edc,
    gift,
    gvbsm,
    hard_truths,
    rd3,
    rded,
    rethinkdc,
    sre2l,
)
from gift_jax.configs.protocols.base import Setting

Protocol = Callable[[Setting], dict[str, Any]]

PROTOCOLS: dict[str, Protocol] = {
    "gift": gift.fields,
    "rded": rded.fields,
    "sre2l": sre2l.fields,
    "datm": datm.fields,
    "gvbsm": gvbsm.fields,
    "edc": edc.fields,
    "rd3": rd3.fields,
    "rethinkdc": rethinkdc.fields,
    "ddranking": ddranking.fields,
    "hard_truths": hard_truths.fields,
    "best": best.fields,
}

# Protocols whose learning rate is learnt with the images, if it is not given.
LEARNT_RATE = ("datm",)


def fields(name: str, setting: Setting) -> dict[str, Any]:
    """The fields of a config that a protocol sets, with their values.

    Args:
      name: A name in `PROTOCOLS`, or "package.module:attribute" of the user's own.
      setting: The setting that they are for.

    Raises:
      InputError: there is no such protocol, or it has no recipe for this setting.
    """
    return registry.find("protocol", name, PROTOCOLS)(setting)
