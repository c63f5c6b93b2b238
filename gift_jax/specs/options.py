"""Options of a config in one string, such as "ipc=1,loss.gift.gamma=0.2"."""

import ast
import copy
import re
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from gift_jax import registry
from gift_jax.configs import protocols
from gift_jax.data import info
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

# Matches names of what PyTorch runs.
_OF_PYTORCH = re.compile(r"\b(?:torch|timm|torchvision):[^+,\s]*")
_QUOTED = r"""'[^']*'|"[^"]*\""""


def with_options(
    config: ml_collections.ConfigDict, options: str
) -> ml_collections.ConfigDict:
    """Sets the options given after the colon of a config file.

    Fields of a protocol, as of "protocol=rd3", are set first, so other options override
    them.

    Args:
      config: Changed in place.
      options: "field=value,field=value", or empty; commas in brackets and quotes are
        part of a value, as in "train.seeds=(0,1)".

    Returns:
      The config.

    Raises:
      InputError: an unknown option, or a value of another type.
    """
    parsed = parse_options(config, options)
    config.update_from_flattened_dict(with_protocol(config, parsed))
    return config


def with_flags(
    config: ml_collections.ConfigDict,
    given: Mapping[str, Any],
    change: Callable[[ml_collections.ConfigDict], None] | None = None,
) -> None:
    """Sets the fields that a command's flags give, which override all else.

    A protocol among them is applied first, and overrides the config file. What a study
    derives, as views from epochs, it derives from the flags.

    Args:
      config: Changed in place.
      given: Values by the names of their fields.
      change: Makes the changes of a study, which override the protocol.

    Raises:
      InputError: as `with_options`.
    """
    if "protocol" in given:
        with_options(config, f"protocol={given['protocol']}")
    if change is not None:
        config.update_from_flattened_dict(given)
        change(config)
    config.update_from_flattened_dict(given)


def with_protocol(
    config: ml_collections.ConfigDict, parsed: dict[str, Any]
) -> dict[str, Any]:
    """Parsed options, over the fields of a protocol if one is among them.

    Raises:
      InputError: as `protocol_fields`.
    """
    if "protocol" not in parsed:
        return parsed
    changed = copy.deepcopy(config)
    changed.update_from_flattened_dict(parsed)
    return protocol_fields(changed) | parsed


def protocol_fields(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The fields that the protocol of a config sets, with their values.

    Raises:
      InputError: there is no such protocol, or it is not for this config.
    """
    name = config.dataset.name
    known = info.DATASETS.get(info.canonical_name(name))

    def networks(text: str) -> tuple[str, ...]:
        return tuple(registry.split_options(one)[0] for one in registry.names(text))

    setting = protocols.Setting(
        dataset=known.name if known else name,
        image_size=config.dataset.image_size or (known.image_size if known else None),
        num_classes=known.num_classes if known else None,
        ipc=config.distilled.ipc,
        teacher=networks(config.teacher.name)[0],
        students=networks(config.student.name),
    )
    return protocols.fields(config.protocol, setting)


def protocol_changes(config: ml_collections.ConfigDict) -> str:
    """Fields of a config that differ from its protocol, and their values.

    Loss and optimizer are not among them: studies vary them, and rows name them.

    Raises:
      InputError: as `protocol_fields`.
    """
    found = flattened(config)
    return " ".join(
        f"{field}={found[field]}"
        for field, value in protocol_fields(config).items()
        if field not in ("loss.name", "optimizer.name") and found[field] != str(value)
    )


def parse_options(config: ml_collections.ConfigDict, options: str) -> dict[str, Any]:
    """The fields that options set, by their full names, with values.

    Raises:
      InputError: as `with_options`.
    """
    values = {}
    for option in filter(None, _apart(options)):
        name, equals, text = option.partition("=")
        if not equals:
            raise InputError(
                f"option {name!r} has no '=': expected NAME=VALUE, as ipc=10"
            )
        field = OPTIONS.get(name, name)
        *path, leaf = field.split(".")
        section: Any = config
        for part in path:
            section = section.get(part) if hasattr(section, "get") else None
        if not hasattr(section, "keys") or leaf not in section:
            without_section = [n for n in config if not hasattr(config[n], "keys")]
            raise registry.unknown_name(
                "option of the config",
                name,
                [*OPTIONS, *without_section],
                or_else=", or a field as loss.gift.gamma",
            )
        values[field] = parse_value(text, section.get_type(leaf), name)
    return values


def _apart(options: str) -> list[str]:
    """Splits options at commas outside the brackets and quotes of values.

    Both count only where a value begins, and in brackets, as a path may have them.
    """
    parts, depth, quote = [""], 0, ""
    for char in options:
        may_open = depth or parts[-1].endswith("=")
        if char == "," and not depth and not quote:
            parts.append("")
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"" and may_open:
            quote = char
        elif char in "([" and may_open:
            depth += 1
        elif char in ")]" and depth:
            depth -= 1
        parts[-1] += char
    return parts


def parse_value(text: str, kind: type, name: str) -> Any:
    """The value of an option.

    Raises:
      InputError: the value is not of the expected type.
    """
    if kind is str:
        return text[1:-1] if re.fullmatch(_QUOTED, text) else text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if kind is float and type(value) is int:
        value = float(value)
    is_other = not isinstance(value, kind) or (kind is int and isinstance(value, bool))
    if is_other and kind is not type(None):
        form = ", several values in brackets, as (0,1)" if kind is tuple else ""
        raise InputError(f"option {name}={text} must be of type {kind.__name__}{form}")
    return value


def flattened(config: ml_collections.ConfigDict, prefix: str = "") -> dict[str, str]:
    """All fields of a config, as section.name, with their values as text."""
    found: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            found |= flattened(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = str(value)
    return found


def names_own_code(config: ml_collections.ConfigDict) -> bool:
    """Whether a field names user code, as "module:attribute", that JAX runs."""
    # Names of the dataset, such as "tfds:NAME" and "folder:PATH", are no code.
    return any(
        re.search(r"\w:[A-Za-z_]", _OF_PYTORCH.sub("", value))
        for name, value in flattened(config).items()
        if not name.startswith("dataset.")
    )
