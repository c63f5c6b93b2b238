"""Statistics over seeds: means, standard deviations, paired differences."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import stats

from gift_jax.pipeline.results import Row

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Summary:
    """Values over seeds.

    Attributes:
      n: Number of values.
      mean: Mean; None without values.
      sd: Sample standard deviation (ddof=1); None for fewer than two values.
      half_width: Half width of the 95% t-interval of the mean. None for fewer than two
        values, and where all are the same: a spread of zero is no estimate of the
        spread.
    """

    n: int = 0
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
        low, high = self.interval or (0, 0)
        return int(low > 0) - int(high < 0)


def summarize(values: Iterable[float]) -> Summary:
    """The statistics of values, one per seed."""
    array = np.asarray(list(values), np.float64)
    n = len(array)
    if n == 0:
        return Summary()
    mean = float(array.mean())
    if n == 1:
        return Summary(1, mean)
    sd = float(array.std(ddof=1))
    # Equal differences of accuracies can differ in their last bits.
    if np.ptp(array) <= 1e-9 * max(1.0, float(np.abs(array).max())):
        return Summary(n, mean, sd)
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
    return Summary(n, mean, sd, quantile * sd / math.sqrt(n))


@dataclasses.dataclass(frozen=True)
class Correlation:
    """A rank correlation over pairs.

    Attributes:
      n: Number of pairs.
      value: Spearman's correlation; None where one side does not vary.
      interval: 95% interval; None for fewer than four pairs, or at 1 or -1.
    """

    n: int
    value: float | None = None
    interval: tuple[float, float] | None = None


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> Correlation:
    """Spearman's rank correlation.

    Its interval is that of Bonett and Wright (Psychometrika 65, 2000): Fisher's
    transform, with the variance (1 + r^2 / 2) / (n - 3).
    """
    n = len(pairs)
    array = np.asarray(pairs, np.float64).reshape(n, 2)
    if n < 2 or not np.ptp(array, axis=0).all():
        return Correlation(n)
    value = float(stats.spearmanr(*array.T).statistic)
    if n < 4 or abs(value) > 1 - 1e-12:
        return Correlation(n, value)
    width = stats.norm.ppf((1 + CONFIDENCE) / 2) * math.sqrt(
        (1 + value**2 / 2) / (n - 3)
    )
    low, high = (math.tanh(math.atanh(value) + sign * width) for sign in (-1, 1))
    return Correlation(n, value, (low, high))


def pair(group: Mapping[int, Row], other: Mapping[int, Row]) -> Summary:
    """Last accuracies of a group minus another's, paired over seeds.

    Args:
      group: Rows of finished runs, by seed.
      other: Rows of the other's finished runs. Seeds that finished in one only are left
        out.
    """
    seeds = sorted(group.keys() & other.keys())
    return summarize(group[s]["top1_last"] - other[s]["top1_last"] for s in seeds)
