"""Groups of runs against the baseline of their condition."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from gift_jax.pipeline.results import BLOCK, SETUP
from gift_jax.report.statistics import Group, Summary, pair
from gift_jax.report.tuning import Tuning, protocols

_NO_PAIRS = Summary(0)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A group against the baseline of its condition.

    Attributes:
      group: The group.
      protocol: "default" or "tuned" where the learning rate is by that protocol, of
        which each loss has its own; None where it is a setting as the others are.
      tuning: The choice of a learning rate for the group's settings, if made.
      baseline: The baseline's group, or None where it was not run.
      difference: Group minus baseline, paired over the seeds that finished in both.
    """

    group: Group
    protocol: str | None = None
    tuning: Tuning | None = None
    baseline: Group | None = None
    difference: Summary = _NO_PAIRS

    def setting(self, name: str) -> Any:
        """A setting of the condition: for a learning rate by protocol, which."""
        if name == "learning_rate" and self.protocol:
            return self.protocol
        return self.group.settings[name]

    @property
    def loss(self) -> str:
        """The loss, with its hyperparameters that are not the default."""
        return self.group.loss

    @property
    def setup(self) -> tuple:
        """Optimizer, learning rate or protocol, weight decay and schedule."""
        return tuple(self.setting(name) for name in SETUP)

    @property
    def condition(self) -> tuple:
        """All settings but the loss: what a loss is compared within."""
        return (*self.group.block, *self.setup)

    @property
    def is_baseline(self) -> bool:
        """Whether the group is the baseline itself."""
        return self.group is self.baseline

    @property
    def verdict(self) -> int:
        """1 (better) or -1 (worse) where the interval excludes zero, else 0.

        Also 0 where a run of either diverged: the seeds that are left are a choice.
        """
        if self.baseline is None or self.group.diverged or self.baseline.diverged:
            return 0
        return self.difference.sign


def compare(
    groups: Sequence[Group],
    baseline: str | None,
    tunings: Sequence[Tuning] = (),
    metric: str = "top1_last",
) -> list[Comparison]:
    """Compares every group with the baseline of its condition.

    A group whose learning rate is the default is compared with the baseline at the
    default, and one whose learning rate is tuned with the tuned baseline; both, if
    its tuned rate is the default. Any other is compared at equal learning rates.

    Args:
      groups: All groups.
      baseline: Label of the baseline's loss, or None for no comparison.
      tunings: The choices of learning rates.
      metric: The field that is compared.
    """
    entries = [
        Comparison(group, protocol, tuning)
        for group in groups
        for protocol, tuning in protocols(group, tunings)
    ]
    baselines = {g.condition: g for g in groups if g.loss == baseline}
    baselines |= {e.condition: e.group for e in entries if e.loss == baseline}
    return [_compared(e, baselines.get(e.condition), metric) for e in entries]


def _compared(entry: Comparison, baseline: Group | None, metric: str) -> Comparison:
    difference = _NO_PAIRS
    if baseline is not None and entry.group is not baseline:
        difference = pair(entry.group.finished, baseline.finished, metric)
    return dataclasses.replace(entry, baseline=baseline, difference=difference)


def distinguishing(comparisons: Sequence[Comparison]) -> list[str]:
    """The settings besides the loss that tell conditions apart.

    Those that follow from the ones before them, as a batch size from the IPC, are
    left out. The learning rate is not: it is what an optimizer is judged with.
    """
    kept: list[str] = []
    for name in (*BLOCK, *SETUP):
        values = {c.setting(name) for c in comparisons}
        before = {tuple(c.setting(k) for k in kept) for c in comparisons}
        with_it = {tuple(c.setting(k) for k in (*kept, name)) for c in comparisons}
        tells_apart = len(with_it) > len(before)
        if tells_apart or (name == "learning_rate" and _says_more(comparisons, values)):
            kept.append(name)
    return kept


def _says_more(comparisons: Sequence[Comparison], rates: set) -> bool:
    return len(rates) > 1 or any(c.protocol for c in comparisons)
