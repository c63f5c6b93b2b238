"""Gradient norms, and whether they explain what KL without T² does."""

from collections.abc import Mapping, Sequence

import numpy as np

from gift_jax.report import cells, statistics, tables
from gift_jax.report.cells import HEADINGS
from gift_jax.report.comparison import Comparison, compare, distinguishing
from gift_jax.report.markup import Cell, Table
from gift_jax.report.reading import Curve, RunKey, run_key
from gift_jax.report.statistics import Group, Summary
from gift_jax.report.tuning import Tuning

_T_SQUARED = "-t_squared=True"
_FIRST = "gradient_norm_first"


def gradient_table(
    comparisons: Sequence[Comparison],
    losses: Sequence[str],
    curves: Mapping[RunKey, Curve],
) -> Table | None:
    """Norms at initialisation and at the end, beside the accuracy.

    Args:
      comparisons: Of all groups.
      losses: The losses in their order.
      curves: By run.

    Returns:
      The table, or None where no norm was recorded.
    """
    shown = [c for c in tables.sort(comparisons, losses) if _first_norms(c.group)]
    # A group under two protocols has the same gradients in both.
    first: dict[int, Comparison] = {}
    for c in shown:
        first.setdefault(id(c.group), c)
    shown = list(first.values())
    if not shown:
        return None
    names = distinguishing(comparisons)
    usual_n = cells.usual_number_of_runs([c.group for c in shown])
    baselines = {c.baseline.loss for c in shown if c.baseline}
    over = f"over {', '.join(sorted(baselines))}" if baselines else "ratio"
    return Table(
        name="gradient_norms",
        title="Gradient norms",
        caption="Global norm of the gradient of the loss, without weight decay: of the "
        "first batch at initialisation (mean over seeds), as a multiple of the "
        "baseline's (mean over seeds of the ratio of the two runs of a seed), and as "
        "the mean over the steps of the last epoch of the runs that finished. "
        "Accuracy: top-1 after the last epoch in percent, "
        f"{cells.over_seeds(usual_n)}. {cells.emphasis(comparisons)}",
        header=[
            *(HEADINGS[name] for name in names),
            "loss",
            "at initialisation",
            over,
            "in the last epoch",
            "top-1",
        ],
        rows=[
            [
                *tables.setting_cells(c, names),
                Cell(c.loss),
                Cell(_norm_text(statistics.summarize(_first_norms(c.group).values()))),
                Cell(_ratio_text(c)),
                Cell(_norm_text(_last_norms(c.group, curves))),
                cells.accuracy_cell(c, usual_n),
            ]
            for c in shown
        ],
        text_columns=len(names) + 1,
    )


def t_squared_table(groups: Sequence[Group], tunings: Sequence[Tuning]) -> Table | None:
    """KL against itself times T²; None where not both were run."""
    labels = dict.fromkeys(g.loss for g in groups)
    plain = next((b for b in labels if b + _T_SQUARED in labels), None)
    if plain is None:
        return None
    multiplied = plain + _T_SQUARED
    compared = compare(
        [g for g in groups if g.loss in (plain, multiplied)], plain, tunings
    )
    pairs = [c for c in compared if c.loss == multiplied and c.baseline]
    if not pairs:
        return None
    names = distinguishing(pairs)
    if "learning_rate" not in names:
        names.append("learning_rate")
    by_condition = {c.condition: c for c in compared if c.loss == plain}
    usual_n = cells.usual_number_of_runs(
        [g for c in pairs for g in (c.group, c.baseline) if g]
    )
    return Table(
        name="t_squared",
        title="Is it the missing T²?",
        caption=f"{plain} leaves out the factor T² that gives the gradient its usual "
        "size; an optimizer that follows the size of the gradient then takes smaller "
        f"steps. Where {multiplied} at the same learning rate, or {plain} at a tuned "
        "one, does as well as other losses, a low accuracy comes of the size of the "
        "gradient; where neither does, it comes of something else. Under SGD a rate "
        "that is T² times larger makes up for the factor only without weight "
        "decay, which it multiplies as well. Ratio of the gradient norms at "
        "initialisation: mean over seeds. Top-1 test accuracy after "
        f"the last epoch in percent, {cells.over_seeds(usual_n)}; difference of the "
        "two, paired over seeds, with its 95% t-interval, in bold or italic where it "
        "excludes zero and no run of either diverged.",
        header=[
            *(HEADINGS[name] for name in names),
            "gradient ratio",
            plain,
            multiplied,
            "difference",
            "95% interval",
            "pairs",
        ],
        rows=[
            [
                *(Cell(cells.condition_text(c, name)) for name in names),
                Cell(_ratio_text(c)),
                cells.accuracy_cell(by_condition.get(c.condition), usual_n),
                cells.accuracy_cell(c, usual_n),
                *cells.difference_cells(c.difference, c.verdict),
            ]
            for c in tables.sort(pairs, [multiplied])
        ],
        text_columns=len(names),
    )


def _first_norms(group: Group) -> dict[int, float]:
    """By seed; of runs that diverged too, for they began as the others."""
    return {row["seed"]: row[_FIRST] for row in group.rows if row.get(_FIRST)}


def _ratio_text(comparison: Comparison) -> str:
    if comparison.baseline is None:
        return cells.ABSENT
    norms, others = _first_norms(comparison.group), _first_norms(comparison.baseline)
    seeds = sorted(norms.keys() & others.keys())
    if not seeds:
        return cells.ABSENT
    return f"{np.mean([norms[seed] / others[seed] for seed in seeds]):.4g}"


def _last_norms(group: Group, curves: Mapping[RunKey, Curve]) -> Summary:
    found = [curves.get(run_key(row)) for row in group.finished.values()]
    return statistics.summarize(
        curve.gradient[-1, 1] for curve in found if curve and len(curve.gradient)
    )


def _norm_text(norms: Summary) -> str:
    return cells.ABSENT if norms.mean is None else f"{norms.mean:.3g}"
