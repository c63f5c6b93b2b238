"""An optimizer of a config: `optimizers.OptimizerSpec` from its section."""

from ml_collections.config_dict import ConfigDict

from gift_jax import optimizers, registry
from gift_jax.optimizers import OptimizerSpec
from gift_jax.runtime.errors import InputError
from gift_jax.specs import base
from gift_jax.specs.options import parse_value

# Fields of the section that are not among the options of an optimizer.
_NO_OPTIONS = ("name", "learning_rate")


def optimizer_spec(section: ConfigDict, text: str) -> OptimizerSpec:
    """An optimizer, complete with its defaults.

    Args:
      section: Section with the options that the name does not give.
      text: Its name, with any options, as "sgd-weight_decay=0.0". A learning rate among
        them is its default, which one in the section replaces.

    Raises:
      InputError: an unknown optimizer or option.
    """
    name, given = registry.split_options(text)
    rate = given.pop("learning_rate", None)
    if section.learning_rate is None and rate is not None:
        learning_rate = parse_value(rate, float, "learning_rate")
    else:
        learning_rate = section.learning_rate
    defaults = optimizers.optimizer_options(name)
    # The section has a built-in optimizer's options, and of a user's the shared ones.
    own = registry.is_own(name)
    shared = ("schedule", "warmup_epochs", "ema") if own else tuple(defaults)
    values = {option: section[option] for option in shared}
    options = base.chosen_options(name, given, defaults, values)
    return OptimizerSpec.create(name, learning_rate=learning_rate, **dict(options))


def check_used(section: ConfigDict, specs: list[OptimizerSpec]) -> None:
    """Refuses options of a section that none of its optimizers have."""
    for field in section:
        default = optimizers.optimizer_options("sgd").get(field)
        has_it = any(field in optimizers.optimizer_options(spec.name) for spec in specs)
        if field in _NO_OPTIONS or has_it or section[field] in (None, default):
            continue
        raise InputError(
            f"optimizer.{field} is {section[field]}, which has no effect: "
            f"{', '.join(spec.name for spec in specs)} have no {field}"
        )
