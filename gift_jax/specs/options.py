"""Options of a config in one string, such as "ipc=1,loss.gift.gamma=0.2"."""

import ast
from typing import Any

import ml_collections

from gift_jax import registry
from gift_jax.runtime.errors import InputError

# Short names of fields.
OPTIONS = {
    "data_dir": "dataset.data_dir",
    "teacher": "teacher.name",
    "distill": "distilled.name",
    "ipc": "distilled.ipc",
    "views": "relabel.views",
    "student": "student.name",
    "loss": "loss.name",
    "optimizer": "optimizer.name",
    "lr": "optimizer.learning_rate",
    "epochs": "train.epochs",
    "batch_size": "train.batch_size",
}


def with_options(
    config: ml_collections.ConfigDict, options: str
) -> ml_collections.ConfigDict:
    """Sets the options given behind a config file's colon.

    Args:
      config: Changed in place.
      options: "field=value,field=value", or empty.

    Returns:
      The config.

    Raises:
      InputError: an unknown option, or a value of another type.
    """
    config.update_from_flattened_dict(parse_options(config, options))
    return config


def parse_options(config: ml_collections.ConfigDict, options: str) -> dict[str, Any]:
    """The fields that options set, by their full names, with values.

    Raises:
      InputError: as `with_options`.
    """
    values = {}
    for option in filter(None, options.split(",")):
        name, equals, text = option.partition("=")
        field = OPTIONS.get(name, name)
        *path, leaf = field.split(".")
        section: Any = config
        for part in path:
            section = section.get(part) if hasattr(section, "get") else None
        if not equals or not hasattr(section, "keys") or leaf not in section:
            raise registry.unknown_name(
                "option of the config",
                name,
                OPTIONS,
                or_else=", or a field as loss.gift.gamma; each as NAME=VALUE",
            )
        values[field] = parse_value(text, section.get_type(leaf), name)
    return values


def parse_value(text: str, kind: type, name: str) -> Any:
    """The value of an option.

    Raises:
      InputError: it is not of the type that is expected.
    """
    if kind is str:
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if kind is float and type(value) is int:
        value = float(value)
    is_other = not isinstance(value, kind) or (kind is int and isinstance(value, bool))
    if is_other and kind is not type(None):
        raise InputError(f"option {name}={text} must be of type {kind.__name__}")
    return value
