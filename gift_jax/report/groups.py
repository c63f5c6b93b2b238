"""Groups of runs that differ in nothing but the seed, against their baselines.

Runs that diverged have no accuracy. They are counted, but are in no mean.
"""

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional, Protocol

from gift_jax.pipeline import results
from gift_jax.pipeline.results import BENCHMARK, OPTIMIZER, SETTINGS, Row
from gift_jax.report.statistics import Summary, pair, summarize
from gift_jax.runtime.errors import InputError

DEFAULT, TUNED = "default", "tuned"
FINGERPRINTS = (
    "teacher_fingerprint", "distilled_fingerprint", *reversed(results.IDENTITY)
)  # fmt: skip
# What tells benchmarks apart: words, and fingerprints where words do not.
# The other words follow from a protocol with its own recipe, so it is told first.
_WORDS = (
    "protocol",
    *(name for name in BENCHMARK if name not in FINGERPRINTS),
    "protocol_changes",
)
FIELDS = (*_WORDS, "data_seed", *FINGERPRINTS, *OPTIMIZER, "loss_code", "loss")
ALL_BUT_LOSS = (*BENCHMARK, *OPTIMIZER)
BYTES = "soft_label_bytes"
_NO_PAIRS = Summary()


def is_at_edge(choice: Row) -> bool:
    """Whether no smaller or no larger learning rate than the chosen one was tried."""
    rates = [trial["learning_rate"] for trial in choice["tried"]]
    chosen = choice["learning_rate"]
    return chosen is not None and not min(rates) < chosen < max(rates)


def is_for(choice: Row, settings: Mapping[str, Any], but: Sequence[str] = ()) -> bool:
    """Whether a learning rate was chosen for these settings, those in `but` aside."""
    names = [name for name in results.TUNING_SETTINGS if name not in but]
    return all(choice[name] == settings[name] for name in names)


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """The runs that differ in nothing but the seed, and what they are compared with.

    Attributes:
      settings: A value for each of `FIELDS`, and soft_label_bytes where recorded.
      finished: Rows of finished runs, by seed.
      diverged: Rows of diverged runs, by seed.
      rate: "default" or "tuned" where the learning rate is of that kind, of which each
        loss has its own; None where it is a setting like the others.
      choice: Row of the learning rate that was chosen for these settings, if one was.
      baseline: The group of the baseline, or None where it was not run.
      difference: Difference to the baseline, paired over the seeds that finished in
        both.
    """

    settings: Mapping[str, Any]
    finished: Mapping[int, Row]
    diverged: Mapping[int, Row]
    rate: str | None = None
    choice: Row | None = None
    baseline: Optional["Group"] = None
    difference: Summary = _NO_PAIRS

    @property
    def loss(self) -> str:
        """The loss, with its hyperparameters that are not the default."""
        return self.settings["loss"]

    @property
    def key(self) -> tuple:
        """Its settings; one key for a group whose rate is both default and tuned."""
        return tuple(self.settings[name] for name in SETTINGS)

    def setting(self, name: str) -> Any:
        """A setting; of a default or tuned learning rate, "default" or "tuned"."""
        if name == "learning_rate" and self.rate:
            return self.rate
        return self.settings[name]

    def of(self, names: Iterable[str]) -> tuple:
        """Several settings."""
        return tuple(self.setting(name) for name in names)

    @property
    def rows(self) -> list[Row]:
        """Rows of all runs, finished ones first."""
        return [*self.finished.values(), *self.diverged.values()]

    @property
    def is_baseline(self) -> bool:
        """Whether the group is the baseline itself."""
        return self.baseline is not None and self.baseline.key == self.key

    @property
    def verdict(self) -> int:
        """Verdict on the difference to the baseline; see `verdict`."""
        return verdict(self.difference, self, self.baseline)

    def summary(self, field: str) -> Summary:
        """Statistics of a field of the finished runs; rows without it are left out."""
        values = (row.get(field) for row in self.finished.values())
        return summarize(value for value in values if value is not None)


class Runs(Protocol):
    """Runs that are summarized together."""

    @property
    def diverged(self) -> Any:
        """True where one of them diverged."""


def verdict(difference: Summary, *compared: Runs | None) -> int:
    """1 (better) or -1 (worse) where the interval excludes zero, else 0.

    Also 0 where a run of any of those compared diverged: the seeds that are left are a
    selection.
    """
    return 0 if any(runs.diverged for runs in compared if runs) else difference.sign


def group_rows(rows: Iterable[Row]) -> list[Group]:
    """Groups rows over seeds, in the order of their first rows.

    Raises:
      InputError: two runs have the same settings and seed. As samples of one
        distribution they would count twice.
    """
    members: dict[tuple, dict[int, Row]] = collections.defaultdict(dict)
    for row in rows:
        of_group = members[tuple(row[name] for name in SETTINGS)]
        other = of_group.setdefault(row["seed"], row)
        if other is not row:
            raise same_run(other, row)
    return [
        Group(
            {n: next(iter(runs.values())).get(n) for n in (*FIELDS, BYTES)},
            {s: r for s, r in runs.items() if r["status"] == results.FINISHED},
            {s: r for s, r in runs.items() if r["status"] == results.DIVERGED},
        )
        for runs in members.values()
    ]


def same_run(first: Row, second: Row) -> InputError:
    """The error for two runs that would count twice."""
    of_first, of_second = (
        f"{r['run_id']!r} of {r['workdir']}" for r in (first, second)
    )
    return InputError(
        f"runs {of_first} and {of_second} have the same settings and seed "
        f"{second['seed']}, expected one run a seed: remove one of them from "
        "results.jsonl, or report them from two work directories, each by itself"
    )


def compare(
    groups: Sequence[Group], baseline: str | None, choices: Sequence[Row] = ()
) -> list[Group]:
    """Compares every group with the baseline that differs in nothing but the loss.

    A group whose learning rate is the default is compared with the baseline at the
    default, and one whose learning rate is tuned with the tuned baseline; both, if
    its tuned rate is the default: it is returned twice. Any other is compared at
    equal learning rates.

    Args:
      groups: All groups.
      baseline: Label of the baseline's loss, or None for no comparison.
      choices: Rows of chosen learning rates.
    """
    compared = [
        dataclasses.replace(group, rate=rate, choice=choice)
        for group in groups
        for rate, choice in _rates(group, choices)
    ]
    baselines = {
        g.of(ALL_BUT_LOSS): g for g in (*groups, *compared) if g.loss == baseline
    }
    return [_against(g, baselines.get(g.of(ALL_BUT_LOSS))) for g in compared]


def _against(group: Group, baseline: Group | None) -> Group:
    difference = _NO_PAIRS
    if baseline is not None and baseline.key != group.key:
        difference = pair(group.finished, baseline.finished)
    return dataclasses.replace(group, baseline=baseline, difference=difference)


def _rates(group: Group, choices: Sequence[Row]) -> list[tuple[str | None, Row | None]]:
    """Kinds of a group's learning rate, each with what was chosen for its settings.

    The default of a loss that was not tuned is that of the losses which were, all
    else being the same.
    """
    rate = group.settings["learning_rate"]
    own = next((c for c in choices if is_for(c, group.settings)), None)
    tuned = (
        [own]
        if own
        else [c for c in choices if is_for(c, group.settings, ["loss", "loss_code"])]
    )
    found: list[str | None] = []
    if any(math.isclose(rate, c["default_learning_rate"]) for c in tuned):
        found.append(DEFAULT)
    if own and math.isclose(rate, own["learning_rate"] or 0):
        found.append(TUNED)
    return [(rate, own) for rate in found or [None]]


def distinguishing(groups: Sequence[Group]) -> list[str]:
    """The settings besides the loss that tell groups apart.

    Those that follow from the ones before them, as a batch size from the IPC or a
    weight decay from the optimizer, are left out. The learning rate is not: it is
    what an optimizer is judged with.
    """
    benchmarks = list({g.of(BENCHMARK): g for g in reversed(groups)}.values())
    words = telling(benchmarks, (*_WORDS, "data_seed", *FINGERPRINTS))
    return words + telling(groups, OPTIMIZER)


def telling(groups: Sequence[Group], names: Sequence[str]) -> list[str]:
    """The settings among `names` that tell groups apart, as in `distinguishing`."""
    kept: list[str] = []
    for name in names:
        values = {g.setting(name) for g in groups}
        before, with_it = ({g.of(n) for g in groups} for n in (kept, [*kept, name]))
        several_rates = len(values) > 1 or values & {DEFAULT, TUNED}
        if len(with_it) > len(before) or (name == "learning_rate" and several_rates):
            kept.append(name)
    return kept


def sort(groups: Sequence[Group], losses: Sequence[str]) -> list[Group]:
    """Groups sorted by the settings that tell them apart, and then by loss.

    Values keep the order of their first appearance, numbers ascend. Of learning rates
    the default comes first, then the tuned one.
    """
    names = distinguishing(groups)
    places: dict[str, list[Any]] = {}
    for name in names:
        seen = places[name] = list(dict.fromkeys(g.setting(name) for g in groups))
        if name == "learning_rate" or all(isinstance(v, int | float) for v in seen):
            seen.sort(key=rank)
    return sorted(
        groups,
        key=lambda g: (
            [places[n].index(g.setting(n)) for n in names],
            losses.index(g.loss),
        ),
    )


def rank(value: Any) -> tuple[int, Any]:
    """A sort key: default and tuned, then absent values, then numbers, then names."""
    first = (DEFAULT, TUNED, None)
    if value in first:
        return first.index(value), 0
    return len(first) + isinstance(value, str), value
