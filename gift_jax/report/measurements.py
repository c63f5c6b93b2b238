"""What evaluators other than that of accuracy have measured: tables and curves."""

import collections
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gift_jax.evaluators import diagnostics
from gift_jax.pipeline.results import OPTIMIZER, is_number
from gift_jax.report import figure_data, lines, style
from gift_jax.report.formatting import (
    ABSENT,
    heading,
    setting_text,
    signed_interval_text,
    signed_text,
)
from gift_jax.report.groups import TUNED, Group, distinguishing, sort
from gift_jax.report.markup import Table
from gift_jax.report.reading import Curve, RunKey
from gift_jax.report.statistics import Summary, rank_correlation

_LAST = "_last"
_ACCURACIES = ("top1_last", "top5_last")
# Fewer pairs have no interval.
_LEAST_GROUPS = 4
# Positive values over a wider range, as a ratio, are drawn on a logarithmic axis.
_WIDE = 100


def measured(groups: Sequence[Group]) -> list[str]:
    """Names of what was measured besides accuracies, in order."""
    found = {
        name.removesuffix(_LAST): None
        for g in groups
        for row in g.finished.values()
        for name, value in row.items()
        if name.endswith(_LAST) and name not in _ACCURACIES and is_number(value)
    }
    return list(found)


def meaning(groups: Sequence[Group]) -> str:
    """End of a caption: what a bound is of, if measured, and where to read."""
    told = "docs/theory.md says what they are."
    if not any(name.endswith("info_nce") for name in measured(groups)):
        return told
    return (
        "InfoNCE, its alignment and its spread are of cosines divided by "
        f"{diagnostics.TEMPERATURE}, in blocks of {diagnostics.BLOCK} images, or of "
        f"all where they are fewer. {told}"
    )


def table(groups: Sequence[Group], losses: Sequence[str]) -> Table | None:
    """All measurements after the last epoch; None where nothing was measured."""
    names, of = measured(groups), distinguishing(groups)
    if not names:
        return None
    return Table(
        "measurements",
        "Measurements",
        "Of the state after the last epoch, mean ± sample standard deviation over the "
        f"finished runs of a setting. {meaning(groups)}",
        [*map(heading, of), "loss"],
        [heading(name) for name in names],
        [
            [
                *(setting_text(g, name, tuned=TUNED) for name in of),
                g.loss,
                *(_text(g.summary(name + _LAST)) for name in names),
            ]
            for g in sort(groups, losses)
        ],
    )


def _text(summary: Summary) -> str:
    if summary.mean is None:
        return ABSENT
    text = f"{summary.mean:.4g}" + (f" ± {summary.sd:.2g}" if summary.n > 1 else "")
    return text.replace("-", "\N{MINUS SIGN}")


def correlations(groups: Sequence[Group]) -> Table | None:
    """Rank correlations with accuracy, over groups; None where they are too few."""
    names = measured(groups)
    told = [n for n in distinguishing(groups) if n not in OPTIMIZER]
    members: dict[str, dict[str, list[Group]]] = {}
    for g in {g.key: g for g in groups}.values():
        benchmark = ", ".join(setting_text(g, name) for name in told)
        of_benchmark = members.setdefault(f" ({benchmark})" if told else "", {})
        of_benchmark.setdefault(g.settings["optimizer"], []).append(g)
    columns: dict[str, list[Group]] = {}
    for benchmark, of_optimizers in members.items():
        if len(of_optimizers) > 1:
            columns["all" + benchmark] = list(itertools.chain(*of_optimizers.values()))
        for optimizer, some in of_optimizers.items():
            columns[f"under {optimizer}{benchmark}"] = some
    columns = {k: some for k, some in columns.items() if len(some) >= _LEAST_GROUPS}
    if not names or not columns:
        return None
    return Table(
        "rank_correlations",
        "Does it rise with accuracy?",
        "Spearman's rank correlation of a measurement with top-1 accuracy, both after "
        "the last epoch, over the losses of an optimizer, or over all of both, "
        "each the mean over its finished runs; 95% interval of Bonett and Wright "
        "(2000), and the number of settings. Not corrected for their number; settings "
        "that are alike, as variants of a loss, count as several.",
        ["measurement"],
        list(columns),
        [
            [heading(name), *(_correlation(some, name) for some in columns.values())]
            for name in names
            if len({g.summary(name + _LAST).mean for g in groups}) > 1
        ],
    )


def _correlation(groups: Sequence[Group], name: str) -> str:
    means = (
        (g.summary("top1_last").mean, g.summary(name + _LAST).mean) for g in groups
    )
    found = rank_correlation(
        [(a, b) for a, b in means if a is not None and b is not None]
    )
    if found.value is None:
        return ABSENT
    text = signed_text(found.value)
    if found.interval is not None:
        text += f" {signed_interval_text(found.interval)}"
    return f"{text}, n = {found.n}"


@style.in_style
def figure(
    groups: Sequence[Group], curves: lines.Curves, losses: Sequence[str]
) -> Figure:
    """A panel for each measurement over epochs, of the groups of one optimizer."""
    names = _names(groups, curves)
    drawing, grid = style.new_panels(
        len(names), columns=3, row=1.35, margin=0.5, sharex=True, sharey=False
    )
    for axes, name in zip(grid.flat, names, strict=False):
        axes.set_title(heading(name))
        axes.grid(True)
        values: list[np.ndarray] = []
        for g in groups:
            found = [
                curve.measured[name]
                for curve in lines.of_runs(g.finished.values(), curves)
                if name in curve.measured
            ]
            if found:
                index = losses.index(g.loss)
                lines.draw_mean(axes, found, index)
                values.append(np.concatenate(found)[:, 1])
        drawn = np.concatenate(values)
        if drawn.min() > 0 and drawn.max() > _WIDE * drawn.min():
            axes.set_yscale("log")
    style.label_epochs(grid, len(names))
    lines.add_legend(drawing, groups, losses)
    return drawing


def _names(groups: Sequence[Group], curves: lines.Curves) -> list[str]:
    """What is drawn: not what is the same throughout, as the ceiling of a bound."""
    found = {
        name: None
        for g in groups
        for curve in lines.of_runs(g.finished.values(), curves)
        for name, points in curve.measured.items()
        if len(set(np.round(points[:, 1], 9))) > 1
    }
    return list(found)


def by_optimizer(
    groups: Sequence[Group], curves: lines.Curves
) -> dict[tuple, list[Group]]:
    """The groups that have something to draw, by optimizer."""
    found: dict[tuple, list[Group]] = collections.defaultdict(list)
    for g in groups:
        if _names([g], curves):
            found[g.of(OPTIMIZER)].append(g)
    return found


def data(groups: Sequence[Group], curves: Mapping[RunKey, Curve]) -> list[list[Any]]:
    """The numbers of `figure`, see `figure_data.of_curves`."""
    return figure_data.of_curves(groups, curves, *_names(groups, curves))
