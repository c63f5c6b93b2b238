"""Options of a config in one string, such as "ipc=1,loss.gamma=0.2"."""

import ast
from typing import Any

import ml_collections

from gift_jax import registry

# Short names of fields.
OPTIONS = {
    "data_dir": "dataset.data_dir",
    "teacher": "teacher.name",
    "distill": "distilled.name",
    "ipc": "distilled.ipc",
    "factor": "distilled.factor",
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
      ValueError: an unknown option, or a value of another type.
    """
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
                or_else=", or a field as loss.gamma; each with a value, NAME=VALUE",
            )
        setattr(section, leaf, parse_value(text, section.get_type(leaf), name))
    return config


def parse_value(text: str, kind: type, name: str) -> Any:
    """The value of an option.

    Raises:
      ValueError: it is not of the type that is expected.
    """
    if kind is str:
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if kind is float and type(value) is int:
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"option {name}={text} must be of type {kind.__name__}")
    return value
