"""Learning rates chosen on images held out of the real train split.

The test split is not used: the chosen rate is the one whose students are best on the
held-out images after the last epoch.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gift_jax.pipeline.results import DIVERGED, TUNING_SETTINGS
from gift_jax.specs import StudentSpec, TuningSpec

_log = logging.getLogger(__name__)

# Most rates that are tried beyond the grid. KL lacks a factor T^2 of 400, which is four
# of the default grid's steps beyond its last factor, 10, and two more are looked at.
_MOST_BEYOND = 8

# Mean top-1 by learning rate; None where a run diverged.
Tried = Mapping[float, float | None]
Run = Callable[..., Iterator[dict[str, Any]]]


def tune(
    run: Run,
    student: StudentSpec,
    spec: TuningSpec,
    *,
    on_trained: Callable[[], None],
) -> dict[str, Any]:
    """Chooses the learning rate of a setup.

    Args:
      run: Trains students and measures them on a split: `run_students` of a job.
      student: Student with the default learning rate; its seed does not matter.
      spec: Which factors of the default are tried, and with which seeds.
      on_trained: Called after every training.

    Returns:
      The row for the tuning file. `learning_rate` is None if all rates diverged.
    """
    factors, seeds = sorted(set(spec.factors)), spec.seeds
    default = student.optimizer.learning_rate
    assert default is not None
    tried: dict[float, float | None] = {}
    rows: list[dict[str, Any]] = []
    rates = [_rounded(default * factor) for factor in factors]
    while rates:
        students = [
            student.with_learning_rate(rate).with_seed(seed)
            for rate in rates
            for seed in seeds
        ]
        for row in run(students, split="validation"):
            rows.append(row)
            on_trained()
        for rate in rates:
            tried[rate] = _mean_top1([r for r in rows if r["learning_rate"] == rate])
        beyond = len(tried) - len(factors)
        rates = next_rates(tried, factors) if beyond < _MOST_BEYOND else []
    chosen = best_rate(tried, default)
    _log.info(
        "learning rate of %s, %s: %s",
        student.loss.label,
        student.optimizer.label,
        chosen,
    )
    return {
        **{name: rows[0][name] for name in TUNING_SETTINGS if name in rows[0]},
        "default_learning_rate": default,
        "learning_rate": chosen,
        "validation_images": spec.validation_images,
        "seeds": list(seeds),
        "tried": [
            {"learning_rate": rate, "top1": top1}
            for rate, top1 in sorted(tried.items())
        ],
    }


def best_rate(tried: Tried, default: float) -> float | None:
    """The rate with the highest accuracy; among equal ones, the nearest to the default.

    >>> best_rate({0.1: 50.0, 0.3: 60.0, 1.0: 60.0, 3.0: None}, default=0.1)
    0.3
    """
    finished = {rate: top1 for rate, top1 in tried.items() if top1 is not None}
    if not finished:
        return None
    return max(
        finished, key=lambda rate: (finished[rate], -abs(math.log(rate / default)))
    )


def next_rates(tried: Tried, factors: Sequence[float]) -> list[float]:
    """The rate to try next, until there are two on either side of the best.

    One is not enough: accuracies of neighbouring rates differ by less than their noise.

    Args:
      tried: Mean top-1 by rate.
      factors: Three or more, ascending. Beyond the grid rates go on in the ratio of
        the outermost factor to the next but one: 1, 3, 10, 30, 100.

    >>> tried = {0.1: 50.0, 0.3: 60.0, 1.0: 55.0}
    >>> next_rates(tried, [1, 3, 10])
    [0.03]
    >>> next_rates({0.03: 40.0, **tried}, [1, 3, 10])
    [3.0]
    >>> next_rates({0.03: 40.0, **tried, 3.0: None}, [1, 3, 10])
    []
    """
    rates = sorted(tried)
    # Where all rates are equally good the middle is no worse than an edge.
    best = best_rate(tried, math.sqrt(rates[0] * rates[-1]))
    if best is None or best in rates[:2]:
        return [_rounded(rates[1] * factors[0] / factors[2])]
    if best in rates[-2:]:
        return [_rounded(rates[-2] * factors[-1] / factors[-3])]
    return []


def _rounded(rate: float) -> float:
    """A rate with six digits, as in messages and file names."""
    return float(f"{rate:.6g}")


def _mean_top1(rows: Sequence[Mapping[str, Any]]) -> float | None:
    if any(row["status"] == DIVERGED for row in rows):
        return None
    return float(np.mean([row["top1_last"] for row in rows]))
