"""Statistics over seeds: means, standard deviations, paired differences.

Runs that diverged have no accuracy. They are counted, and in no mean.
"""

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from scipy import stats

from gift_jax.pipeline.results import BLOCK, SETTINGS, SETUP

CONFIDENCE = 0.95

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Summary:
    """Values over seeds.

    Attributes:
      n: How many there are.
      mean: None without values.
      sd: Sample standard deviation (ddof=1); None for fewer than two values.
      half_width: Of the 95% t-interval of the mean. None for fewer than two values,
        and where all are the same: a spread of zero is no estimate of the spread.
    """

    n: int
    mean: float | None = None
    sd: float | None = None
    half_width: float | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% t-interval of the mean."""
        if self.mean is None or self.half_width is None:
            return None
        return self.mean - self.half_width, self.mean + self.half_width

    @property
    def sign(self) -> int:
        """1 or -1 where the interval is above or below zero, else 0."""
        if self.interval is None:
            return 0
        low, high = self.interval
        return int(low > 0) - int(high < 0)


def summarize(values: Iterable[float]) -> Summary:
    """The statistics of values, one a seed."""
    array = np.asarray(list(values), np.float64)
    n = len(array)
    if n == 0:
        return Summary(0)
    mean = float(array.mean())
    if n == 1:
        return Summary(1, mean)
    sd = float(array.std(ddof=1))
    # Equal differences of accuracies can differ in their last bits.
    if np.ptp(array) <= 1e-9 * max(1.0, float(np.abs(array).max())):
        return Summary(n, mean, sd)
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
    return Summary(n, mean, sd, quantile * sd / math.sqrt(n))


def pair(group: Mapping[int, Row], other: Mapping[int, Row], metric: str) -> Summary:
    """Group minus other, paired over the seeds that finished in both.

    Args:
      group: Rows of finished runs, by seed.
      other: Likewise.
      metric: The field whose difference is taken.
    """
    seeds = sorted(group.keys() & other.keys())
    return summarize(group[seed][metric] - other[seed][metric] for seed in seeds)


@dataclasses.dataclass(frozen=True)
class Group:
    """The runs that differ in nothing but the seed.

    Attributes:
      settings: A value for each of `SETTINGS`.
      finished: Rows of finished runs, by seed.
      diverged: Rows of diverged runs, by seed.
    """

    settings: Mapping[str, Any]
    finished: Mapping[int, Row]
    diverged: Mapping[int, Row]

    @property
    def loss(self) -> str:
        """The loss, with its hyperparameters that are not the default."""
        return self.settings["loss"]

    @property
    def setup(self) -> tuple:
        """Optimizer, learning rate, weight decay and schedule."""
        return tuple(self.settings[name] for name in SETUP)

    @property
    def block(self) -> tuple:
        """All settings but the loss and those of the optimizer."""
        return tuple(self.settings[name] for name in BLOCK)

    @property
    def condition(self) -> tuple:
        """All settings but the loss: what a loss is compared within."""
        return (*self.block, *self.setup)

    @property
    def rows(self) -> list[Row]:
        """Rows of all runs, finished ones first."""
        return [*self.finished.values(), *self.diverged.values()]

    @property
    def runs(self) -> int:
        """How many runs finished or diverged."""
        return len(self.finished) + len(self.diverged)

    @property
    def soft_label_bytes(self) -> int | None:
        """Size of the stored soft labels; None where it is not recorded."""
        sizes = (row.get("soft_label_bytes") for row in self.rows)
        return next((size for size in sizes if size is not None), None)

    def summary(self, metric: str) -> Summary:
        """Statistics of a field of the finished runs; rows without it are left out."""
        values = (row.get(metric) for row in self.finished.values())
        return summarize(value for value in values if value is not None)


def group_rows(rows: Iterable[Row]) -> list[Group]:
    """Groups rows over seeds, in the order of their first rows.

    Raises:
      ValueError: two runs have the same settings and seed. As samples of one
        distribution they would count twice.
    """
    members: dict[tuple, dict[int, Row]] = collections.defaultdict(dict)
    for row in rows:
        of_group = members[tuple(row.get(name) for name in SETTINGS)]
        other = of_group.setdefault(row["seed"], row)
        if other is not row:
            raise ValueError(
                f"runs {_place(other)} and {_place(row)} have the same settings and "
                f"seed {row['seed']}, expected one run a seed: remove one of them "
                "from results.jsonl, or report them from two work directories, each "
                "by itself"
            )
    return [
        Group(
            settings=dict(zip(SETTINGS, key, strict=True)),
            finished={s: r for s, r in runs.items() if r["status"] == "finished"},
            diverged={s: r for s, r in runs.items() if r["status"] == "diverged"},
        )
        for key, runs in members.items()
    ]


def _place(row: Row) -> str:
    """The name of a run, with its work directory where that is known."""
    name = repr(row["run_id"])
    return f"{name} of {row['workdir']}" if "workdir" in row else name
