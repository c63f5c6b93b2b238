"""What all specs share: checks of fields, and how they are read from a config.

A spec is a frozen dataclass. Constructing it checks it, and its `dataclasses.asdict` is
its part of a recipe.
"""

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any, TypeVar

from ml_collections.config_dict import ConfigDict

from gift_jax import registry
from gift_jax.data.preprocess import Normalization
from gift_jax.runtime.errors import InputError
from gift_jax.specs.options import parse_value

Spec = TypeVar("Spec")
# Options of something chosen by name, as a sorted tuple, since specs are hashable.
Options = tuple[tuple[str, Any], ...]
_PATHS = ("path", "checkpoint", "data_dir", "init_from")


def from_section(kind: type[Spec], section: ConfigDict, **other: Any) -> Spec:
    """A spec with the fields of the same names in a section.

    In paths, `~` is expanded to the user's home.

    Args:
      kind: Dataclass of the spec.
      section: Section of a config.
      **other: Fields that are not taken from the section.
    """
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    fields = {name: section[name] for name in names if name not in other}
    for name in fields.keys() & _PATHS:
        fields[name] = os.path.expanduser(fields[name])
    return kind(**fields, **other)


def check_least(section: str, spec: Any, **least: float) -> None:
    """Refuses numbers that are too small, NaN or infinite.

    Args:
      section: Name of the section in a config, for the message.
      spec: Object with the fields; None means a default and passes.
      **least: The smallest value of a field.

    Raises:
      InputError: the message names the field, its value and the smallest.
    """
    for name, bound in least.items():
        value = getattr(spec, name)
        if value is not None and not bound <= value < math.inf:
            raise InputError(f"{section}.{name} is {value}, expected at least {bound}")


def check_seeds(field: str, seeds: tuple[int, ...]) -> None:
    """Refuses seeds that are no whole numbers, duplicates, and an empty tuple."""
    are_seeds = all(type(seed) is int and seed >= 0 for seed in seeds)
    if not seeds or not are_seeds or len(set(seeds)) < len(seeds):
        raise InputError(
            f"{field} is {seeds}, expected different whole numbers, as (0, 1)"
        )


def chosen_names(field: str, text: str) -> list[str]:
    """The names in a field that takes several, joined by "+"; refuses duplicates."""
    names = registry.names(text)
    if len(set(names)) < len(names):
        raise InputError(f"{field} is {text!r}: one name twice")
    return names


def chosen_options(
    what: str,
    given: Mapping[str, str],
    defaults: Mapping[str, Any],
    section: Mapping[str, Any] | None = None,
) -> Options:
    """All options of something chosen by name, with their values.

    Args:
      what: What was chosen, for messages.
      given: Options in its name, as text.
      defaults: All its options, with their defaults.
      section: Values from a config, in place of the defaults.

    Raises:
      InputError: an option that it does not have, or a value of another type.
    """
    values = {name: (section or {}).get(name, defaults[name]) for name in defaults}
    for name, text in given.items():
        if name not in defaults:
            raise registry.unknown_name(f"option of {what}", name, defaults or ["none"])
        values[name] = parse_value(text, type(defaults[name]), name)
    return tuple(sorted(values.items()))


def normalization(section: str, mean: Any, std: Any) -> Normalization | None:
    """Channel statistics given in a section; None where there are none."""
    if not mean and not std:
        return None
    try:
        return Normalization(mean, std)
    except ValueError as error:
        raise InputError(f"{section}.mean and {section}.std: {error}") from error
