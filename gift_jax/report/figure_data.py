"""The numbers that figures draw, as rows of CSV with a header.

Settings are columns where they tell groups apart, those of the optimizer always.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gift_jax.pipeline.results import OPTIMIZER, Row
from gift_jax.report.examples import Examples
from gift_jax.report.groups import BYTES, FIELDS, Group
from gift_jax.report.reading import Curve, RunKey, run_key

Data = list[list[Any]]


def _settings(groups: Sequence[Group]) -> list[str]:
    varying = {n for n in FIELDS if len({g.settings[n] for g in groups}) > 1}
    shown = [n for n in FIELDS if n in {*varying, *OPTIMIZER, "loss"}]
    return [*shown, *[BYTES] * (len({g.settings[BYTES] for g in groups}) > 1)]


def _values(group: Group, names: Iterable[str]) -> list[Any]:
    return [group.settings[name] for name in names] + [group.rate]


def of_runs(groups: Sequence[Group]) -> Data:
    """One row per run: its accuracy in percent, and mean and interval of its group.

    The accuracy of a run that diverged is the last one before, and is in no mean.
    """
    names = _settings(groups)
    numbers = ["seed", "status", "top1_last", "mean", "half_width"]
    return [
        [*names, "rate", *numbers],
        *(
            [*_values(g, names), *of_run, s.mean, s.half_width]
            for g in groups
            for s in [g.summary("top1_last")]
            for row in g.rows
            for of_run in [(row["seed"], row["status"], row["top1_last"])]
        ),
    ]


def of_differences(groups: Sequence[Group]) -> Data:
    """One row per group: its paired difference to the baseline in points."""
    names = _settings(groups)
    numbers = ["baseline", "pairs", "difference", "half_width"]
    return [
        [*names, "rate", *numbers],
        *(
            [
                *_values(g, names),
                g.baseline and g.baseline.loss,
                d.n,
                d.mean,
                d.half_width,
            ]
            for g in groups
            for d in [g.difference]
        ),
    ]


def of_choices(choices: Sequence[Row]) -> Data:
    """One row per learning rate tried: accuracy on held-out images in percent."""
    names = ["optimizer", "weight_decay", "schedule", "loss"]
    rows: Data = [[*names, "learning_rate", "top1", "is_chosen", "is_default"]]
    for choice in choices:
        settings = [choice[name] for name in names]
        chosen, default = choice["learning_rate"], choice["default_learning_rate"]
        for trial in sorted(choice["tried"], key=lambda t: t["learning_rate"]):
            rate = trial["learning_rate"]
            numbers = [rate, trial["top1"], rate == chosen, rate == default]
            rows.append([*settings, *numbers])
    return rows


def of_curves(
    groups: Sequence[Group], curves: Mapping[RunKey, Curve], *quantities: str
) -> Data:
    """One row per run, quantity and epoch.

    Args:
      groups: Groups of the runs.
      curves: Curves by run.
      *quantities: "train", "test", "gradient" of a `Curve`, or names in its `measured`.
    """
    names = _settings(groups)
    return [
        [*names, "rate", "seed", "quantity", "epoch", "value"],
        *(
            [*_values(g, names), row["seed"], quantity, epoch, value]
            for g in groups
            for row in g.rows
            if run_key(row) in curves
            for quantity in quantities
            for epoch, value in _points(curves[run_key(row)], quantity)
        ),
    ]


def _points(curve: Curve, quantity: str) -> list[list[float]]:
    if quantity in ("train", "test", "gradient"):
        return getattr(curve, quantity).tolist()
    return [point.tolist() for point in curve.measured.get(quantity, ())]


def of_examples(shown: Examples) -> Data:
    """One row per image, with the probabilities of all classes in its soft label."""
    found = shown.probabilities
    soft = found.tolist() if found is not None else [[]] * len(shown.labels)
    classes = [f"class {number}" for number in range(len(soft[0]))]
    rows = zip(shown.labels.tolist(), soft, strict=True)
    return [["hard label", *classes], *([label, *values] for label, values in rows)]
