"""An optimizer of a config: `optimizers.OptimizerSpec` from its section."""

from ml_collections.config_dict import ConfigDict

from gift_jax import optimizers, registry
from gift_jax.optimizers import OptimizerSpec
from gift_jax.runtime.errors import InputError
from gift_jax.specs import base

# Fields that are none of an optimizer's options: rates are told apart without.
_NO_OPTIONS = ("name", "learning_rate")


def optimizer_spec(section: ConfigDict, text: str) -> OptimizerSpec:
    """An optimizer, complete with its defaults.

    Args:
      section: Holds the options that the name does not give.
      text: Its name, with options of its own: "sgd-weight_decay=0.0".

    Raises:
      InputError: an unknown optimizer or option.
    """
    name, given = registry.split_options(text)
    fields = {field: section[field] for field in section if field not in _NO_OPTIONS}
    # What other optimizers of the config have, this one need not.
    fields = {
        field: value
        for field, value in fields.items()
        if field in optimizers.option_names(name)
    }
    kinds = {field: section.get_type(field) for field in fields}
    for option, value in given.items():
        if option not in kinds:
            raise registry.unknown_name(f"option of {name}", option, kinds or ["none"])
        fields[option] = base.parse_value(value, kinds[option], option)
    return OptimizerSpec(name, learning_rate=section.learning_rate, **fields)


def check_used(section: ConfigDict, specs: list[OptimizerSpec]) -> None:
    """Refuses options of a section that none of its optimizers have."""
    for field in section:
        default = getattr(OptimizerSpec("sgd"), field, None)
        has_it = any(field in optimizers.option_names(spec.name) for spec in specs)
        if field in _NO_OPTIONS or has_it or section[field] in (None, default):
            continue
        raise InputError(
            f"optimizer.{field} is {section[field]}, which has no effect: "
            f"{', '.join(spec.name for spec in specs)} have no {field}"
        )
