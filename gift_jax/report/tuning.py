"""Learning rates that were chosen on held-out images of the training data."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from gift_jax.pipeline.results import TUNING_SETTINGS, parse_object
from gift_jax.report.statistics import Group

DEFAULT, TUNED = "default", "tuned"


@dataclasses.dataclass(frozen=True)
class Tuning:
    """The choice of a learning rate, for all settings but the seed.

    Attributes:
      settings: Those of `results.TUNING_SETTINGS` that were recorded.
      default_learning_rate: What the optimizer has unless it is told otherwise.
      learning_rate: The one that was chosen; None where all diverged.
      validation_images: How many held-out images it was chosen on.
      seeds: Those it was chosen with.
      tried: Learning rates in ascending order, each with its mean top-1 on the
        held-out images in percent, or None where a run diverged.
    """

    settings: Mapping[str, Any]
    default_learning_rate: float
    learning_rate: float | None
    validation_images: int
    seeds: tuple[int, ...]
    tried: tuple[tuple[float, float | None], ...]

    @property
    def at_edge(self) -> bool:
        """Whether no smaller or no larger rate than the chosen one was tried."""
        rates = [rate for rate, _ in self.tried]
        chosen = self.learning_rate
        return chosen is not None and not min(rates) < chosen < max(rates)

    def is_for(self, settings: Mapping[str, Any]) -> bool:
        """Whether the choice was made for these settings."""
        return all(settings.get(name) == value for name, value in self.settings.items())


def parse_tuning(line: str) -> Tuning:
    """Parses and checks a line of the file of tuned learning rates.

    Raises:
      ValueError: it is none; the message says why.
    """
    found = parse_object(line)
    for name in ("loss", "optimizer"):
        if not isinstance(found.get(name), str):
            raise ValueError(f"{name} is {found.get(name)!r}, expected a name")
    for name in ("learning_rate", "default_learning_rate"):
        is_none = name == "learning_rate" and found.get(name, "absent") is None
        if not is_none and not _is_rate(found.get(name)):
            raise ValueError(
                f"{name} is {found.get(name)!r}, expected a positive number"
            )
    tried = found.get("tried")
    if not isinstance(tried, list) or not tried or not all(map(_is_trial, tried)):
        raise ValueError(
            f"tried is {tried!r}, expected a list of objects with learning_rate and "
            "top1"
        )
    trials = [(trial["learning_rate"], trial["top1"]) for trial in tried]
    return Tuning(
        settings={name: found[name] for name in TUNING_SETTINGS if name in found},
        default_learning_rate=found["default_learning_rate"],
        learning_rate=found["learning_rate"],
        validation_images=found.get("validation_images", 0),
        seeds=tuple(found.get("seeds", ())),
        tried=tuple(sorted(trials, key=lambda trial: trial[0])),
    )


def _is_rate(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0


def _is_trial(trial: Any) -> bool:
    if not isinstance(trial, dict) or not _is_rate(trial.get("learning_rate")):
        return False
    top1 = trial.get("top1", "absent")
    return top1 is None or (isinstance(top1, int | float) and math.isfinite(top1))


def latest(tunings: Sequence[Tuning]) -> list[Tuning]:
    """The last choice for each settings."""
    return list({tuple(t.settings.items()): t for t in tunings}.values())


def protocols(
    group: Group, tunings: Sequence[Tuning]
) -> list[tuple[str | None, Tuning | None]]:
    """By which protocols a group has its learning rate.

    The default of a loss that was not tuned is that of the losses which were, under
    settings that are the same in all else.

    Returns:
      "default", "tuned", both, or None where it is neither; each with the choice
      for these settings, if one was made.
    """
    rate = group.settings["learning_rate"]
    own = next((t for t in tunings if t.is_for(group.settings)), None)
    defaults = [own] if own else [t for t in tunings if _differs_in_loss(t, group)]
    found = []
    if any(_same(rate, t.default_learning_rate) for t in defaults):
        found.append(DEFAULT)
    if own and _same(rate, own.learning_rate):
        found.append(TUNED)
    return [(name, own) for name in found] or [(None, own)]


def _differs_in_loss(tuning: Tuning, group: Group) -> bool:
    return tuning.is_for({**group.settings, "loss": tuning.settings["loss"]})


def _same(rate: float | None, other: float | None) -> bool:
    if rate is None or other is None:
        return False
    return math.isclose(rate, other, rel_tol=1e-9)
