"""From config sections to the objects that they describe."""

import copy
import dataclasses
import functools
import itertools
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import flax.linen as nn
from ml_collections.config_dict import ConfigDict

from gift_jax import augment, distill, losses, models, optimizers, registry
from gift_jax.data import info, preprocess, real
from gift_jax.distilled import readers
from gift_jax.runtime.devices import AXIS
from gift_jax.specs import options
from gift_jax.teachers import teacher

Config: TypeAlias = ConfigDict

# The value of `teacher.checkpoint` that stands for torchvision's weights.
TORCHVISION = "torchvision"
_LEAST_VALUES = {
    "dataset.workers": 0,
    "teacher.width": 1,
    "teacher.epochs": 1,
    "teacher.batch_size": 1,
    "distilled.ipc": 1,
    "distilled.factor": 1,
    "distilled.images_per_class": 1,
    "distilled.crops_per_image": 1,
    "relabel.views": 0,
    "relabel.batch_size": 1,
    "student.width": 1,
    "optimizer.learning_rate": 0,
    "optimizer.weight_decay": 0,
    "optimizer.warmup_epochs": 0,
    "train.epochs": 1,
    "train.batch_size": 0,
    "train.eval_every": 0,
    "train.checkpoint_every": 0,
    "train.keep_checkpoints": 1,
    "train.eval_batch_size": 1,
    "train.students_at_once": 0,
    "tuning.validation_images": 1,
}
SOFT_LABEL_SOURCES = ("store", "online", "dataset", "fkd")


def names(text: str) -> list[str]:
    """The names in a field that takes several, joined by "+".

    >>> names("kl+gift")
    ['kl', 'gift']
    """
    return [name.strip() for name in text.split("+")]


def expand(config: Config) -> Iterator[Config]:
    """The configs of a grid that have one teacher and one distilled dataset each.

    They are those of every variant, teacher and distilled dataset.

    Raises:
      ValueError: a variant names an unknown field or a value of another type, or
        one published dataset has several names.
    """
    for variant in config.variants or ("",):
        of_variant = options.with_options(copy.deepcopy(config), variant)
        if of_variant.distilled.path and "+" in of_variant.distilled.name:
            raise ValueError(
                f"distilled.path is one dataset, but distilled.name is "
                f"{of_variant.distilled.name!r}: give it one name"
            )
        for teacher_name, distilled_name in itertools.product(
            names(of_variant.teacher.name), names(of_variant.distilled.name)
        ):
            single = copy.deepcopy(of_variant)
            single.teacher.name = teacher_name
            single.distilled.name = distilled_name
            yield single


def label(name: str, fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """A name with those of its fields that are not the default.

    >>> label(
    ...     "kl",
    ...     {"t_squared": True, "temperature": 20.0},
    ...     {"t_squared": False, "temperature": 20.0},
    ... )
    'kl-t_squared=True'
    """
    changed = [f"-{k}={v}" for k, v in fields.items() if v != defaults[k]]
    return name + "".join(changed)


def real_dataset(config: Config) -> real.RealDataset:
    """Opens the real dataset of a config."""
    section = config.dataset
    return real.load_dataset(
        section.name,
        data_dir=section.data_dir or None,
        image_size=section.image_size,
        normalization=normalization(section),
        train_split=section.train_split or None,
        test_split=section.test_split or None,
        validation_images=validation_images(config),
    )


def validation_images(config: Config) -> int:
    """How many images are held out of the train split."""
    return config.tuning.validation_images if config.tuning.enabled else 0


def normalization(section: Config) -> preprocess.Normalization | None:
    """Channel statistics given in a section, or None."""
    if not section.mean and not section.std:
        return None
    return preprocess.Normalization(section.mean, section.std)


# One object for equal arguments, so that students share compiled functions.
_create_model = functools.lru_cache(maxsize=None)(models.create_model)


def network(section: Config, name: str, dataset: info.DatasetInfo) -> nn.Module:
    """A model of the `teacher` or `student` section, its batch norm synchronised."""
    return _create_model(
        name,
        num_classes=dataset.num_classes,
        image_size=dataset.image_size,
        axis_name=AXIS,
        dtype=section.dtype,
        **network_options(section, name),
    )


def network_options(section: Config, name: str) -> dict[str, Any]:
    """Options of a model that change its parameters."""
    if name.startswith("conv"):
        return {"width": section.width, "norm": section.norm}
    return {}


def network_recipe(section: Config, name: str) -> dict[str, Any]:
    """What of a model changes the products made with it."""
    return {"name": name, "dtype": section.dtype, **network_options(section, name)}


# Official; what is left out of the names of networks.
_NETWORK_DEFAULTS = {"width": 128, "norm": "batch", "dtype": "float32"}


def network_label(section: Config, name: str) -> str:
    """The name of a model with those of its options that are not the default."""
    fields = {"dtype": section.dtype, **network_options(section, name)}
    return label(name, fields, _NETWORK_DEFAULTS)


def augment_spec(section: Config) -> augment.AugmentSpec:
    """The augmentation of a section."""
    return augment.AugmentSpec(**section.to_dict())


def optimizer_spec(section: Config, name: str) -> optimizers.OptimizerSpec:
    """An optimizer of a section, complete with its defaults.

    Args:
      section: Holds the options that the name does not give.
      name: Of an optimizer, with options of its own: "sgd-weight_decay=0.0".

    Raises:
      ValueError: an unknown optimizer or option.
    """
    optimizer, given = _name_and_options(name)
    fields = {**section.to_dict(), "name": optimizer}
    kinds = {option: section.get_type(option) for option in section}
    # The name is none of its options, and learning rates are told apart without.
    del kinds["name"], kinds["learning_rate"]
    return optimizers.OptimizerSpec(
        **{**fields, **_parsed(given, kinds, f"option of {optimizer}")}
    )


def loss_options(section: Config, name: str) -> tuple[str, dict[str, Any]]:
    """A loss of the `loss` section, and all its hyperparameters.

    Args:
      section: Holds the hyperparameters that the name does not give.
      name: Of a loss, with hyperparameters of its own: "kl-t_squared=True".

    Returns:
      The name of the loss proper, and its hyperparameters.

    Raises:
      ValueError: an unknown loss or hyperparameter.
    """
    loss, given = _name_and_options(name)
    kinds = {option: type(v) for option, v in losses.hyperparameters(loss).items()}
    chosen = {option: section[option] for option in kinds}
    return loss, chosen | _parsed(given, kinds, f"hyperparameter of {loss}")


def _name_and_options(text: str) -> tuple[str, list[str]]:
    """Splits "NAME-OPTION=VALUE-OPTION=VALUE"."""
    # Before "OPTION=": the minus of 1e-3 is part of a value.
    name, *given = re.split(r"-(?=\w+=)", text)
    return name, given


def _parsed(given: list[str], kinds: Mapping[str, type], what: str) -> dict[str, Any]:
    parsed = {}
    for text in given:
        option, _, value = text.partition("=")
        if option not in kinds:
            raise registry.unknown_name(what, option, kinds)
        parsed[option] = options.parse_value(value, kinds[option], option)
    return parsed


def teacher_training(config: Config) -> teacher.TrainingSpec:
    """How the teacher of a config is trained."""
    section = config.teacher
    return teacher.TrainingSpec(
        optimizer=optimizer_spec(section.optimizer, section.optimizer.name),
        epochs=section.epochs,
        batch_size=section.batch_size,
        augmentation=augment_spec(section.augment),
        seed=config.seed,
    )


def views(config: Config) -> int:
    """Views of every image; by default one an epoch."""
    return config.relabel.views or config.train.epochs


def dataset_recipe(dataset: info.DatasetInfo) -> dict[str, Any]:
    """What of a real dataset changes the products made from it."""
    return dataclasses.asdict(dataset)


def _is_hub_id(section: Config) -> bool:
    """Whether a published set is to be fetched from Hugging Face."""
    return section.source == "parquet" and readers.parquet.is_hub_id(
        pathlib.Path(section.path)
    )


def check(config: Config) -> None:
    """Refuses what no run can be made of, before any work is done.

    Args:
      config: One of those of `expand`.

    Raises:
      ValueError: names the field, its value and what it can be.
    """
    for name in names(config.loss.name):
        loss, hyperparameters = loss_options(config.loss, name)
        losses.get_loss(loss, **hyperparameters)
    for name in names(config.optimizer.name):
        optimizer_spec(config.optimizer, name)
    teacher_training(config)
    augment_spec(config.augment)
    for name in (config.teacher.name, *names(config.student.name)):
        if name not in models.MODELS:
            raise registry.unknown_name("model", name, models.MODELS)
    if not config.distilled.path:
        distill.get_method(config.distilled.name)
    if config.relabel.source not in SOFT_LABEL_SOURCES:
        raise registry.unknown_name(
            "relabel.source", config.relabel.source, SOFT_LABEL_SOURCES
        )
    stored = config.relabel.source in ("store", "online")
    if config.relabel.format != "float16" and not stored:
        raise ValueError(
            f"relabel.format is {config.relabel.format!r}, but the labels of "
            f"relabel.source {config.relabel.source!r} are not stored here: leave it "
            "out"
        )
    for field, least in _LEAST_VALUES.items():
        section, name = field.split(".")
        value = config[section][name]
        if value is not None and value < least:
            raise ValueError(f"{field} is {value}, expected at least {least}")
    if config.seed < 0:
        raise ValueError(f"seed is {config.seed}, expected at least 0")
    for field in ("loss", "optimizer", "student"):
        chosen = names(config[field].name)
        if len(set(chosen)) < len(chosen):
            raise ValueError(f"{field}.name is {config[field].name!r}: one name twice")
    for field in ("train", "tuning"):
        seeds = config[field].seeds
        are_seeds = all(type(seed) is int and seed >= 0 for seed in seeds)
        if not seeds or not are_seeds or len(set(seeds)) < len(seeds):
            raise ValueError(
                f"{field}.seeds is {seeds}, expected different whole numbers, as (0, 1)"
            )
    _check_tuning(config)
    if (config.relabel.source == "fkd") != bool(config.relabel.path):
        raise ValueError(
            f"relabel.source is {config.relabel.source!r} and relabel.path is "
            f"{config.relabel.path!r}: the path belongs to the source 'fkd', which "
            "needs it"
        )
    checkpoint, published = config.teacher.checkpoint, config.distilled.path
    paths = {
        "teacher.checkpoint": "" if checkpoint == TORCHVISION else checkpoint,
        "distilled.path": "" if _is_hub_id(config.distilled) else published,
        "relabel.path": config.relabel.path,
        "train.init_from": config.train.init_from,
    }
    for field, path in paths.items():
        if path and not pathlib.Path(path).exists():
            raise FileNotFoundError(f"{field} is {path}, which does not exist")
    source = config.distilled.source
    if source and source not in readers.READERS:
        raise registry.unknown_name("distilled.source", source, readers.READERS)


def _check_tuning(config: Config) -> None:
    factors = config.tuning.factors
    if len(set(factors)) < 3 or min(factors) <= 0:
        raise ValueError(
            f"tuning.factors is {factors}, expected three or more different positive "
            "factors of the default learning rate"
        )
    if not config.tuning.enabled:
        return
    if config.optimizer.learning_rate is not None:
        raise ValueError(
            f"tuning.enabled is set, and optimizer.learning_rate is "
            f"{config.optimizer.learning_rate}: leave one of them out"
        )
