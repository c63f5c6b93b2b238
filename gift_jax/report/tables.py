"""What is in the tables of accuracies.

What is bold is better than the baseline, what is italic is worse, each by a
difference whose 95% interval excludes zero; nothing else is either.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from gift_jax.pipeline import results
from gift_jax.report import cells, statistics
from gift_jax.report.cells import HEADINGS
from gift_jax.report.comparison import Comparison, distinguishing
from gift_jax.report.markup import Cell, Table
from gift_jax.report.statistics import Summary
from gift_jax.report.tuning import DEFAULT, TUNED

# With more losses than these the losses are rows, so that the table stays narrow.
_MAX_LOSS_COLUMNS = 6


def accuracy_table(comparisons: Sequence[Comparison], losses: Sequence[str]) -> Table:
    """Top-1 after the last epoch: losses against conditions.

    Args:
      comparisons: Of all groups.
      losses: The losses in their order.
    """
    names = distinguishing(comparisons)
    by_place = {(c.condition, c.loss): c for c in comparisons}
    conditions = in_order(comparisons, names)
    usual_n = cells.usual_number_of_runs([c.group for c in comparisons])
    body = [
        [cells.accuracy_cell(by_place.get((key, loss)), usual_n) for loss in losses]
        for key in conditions
    ]
    leading = [
        [cells.condition_text(first, name) for name in names]
        for first in conditions.values()
    ]
    header: list[str]
    if len(losses) <= _MAX_LOSS_COLUMNS:
        header = [HEADINGS[name] for name in names] + list(losses)
        rows = [
            [Cell(text) for text in texts] + row
            for texts, row in zip(leading, body, strict=True)
        ]
        text_columns = len(names)
    else:
        header = ["loss", *(", ".join(texts) or "top-1" for texts in leading)]
        rows = [
            [Cell(loss), *(row[i] for row in body)] for i, loss in enumerate(losses)
        ]
        text_columns = 1
    return Table(
        name="accuracy",
        title="Accuracy",
        caption="Top-1 test accuracy after the last epoch in percent, "
        f"{cells.over_seeds(usual_n)}. {cells.emphasis(comparisons)}",
        header=header,
        rows=rows,
        text_columns=text_columns,
    )


def comparison_table(comparisons: Sequence[Comparison], losses: Sequence[str]) -> Table:
    """One row for every group: last, best and the difference to the baseline."""
    names = distinguishing(comparisons)
    has_sizes = len({c.group.soft_label_bytes for c in comparisons}) > 1
    rows = [
        [
            *setting_cells(c, names),
            *[Cell(cells.bytes_text(c.group.soft_label_bytes))] * has_sizes,
            Cell(c.loss),
            Cell(cells.runs_text(c.group)),
            Cell(cells.summary_text(c.group.summary("top1_last"))),
            Cell(cells.summary_text(c.group.summary("top1_best"))),
            *_difference_cells(c),
        ]
        for c in sort(comparisons, losses)
    ]
    return Table(
        name="comparison",
        title="Comparison with the baseline",
        caption="Top-1 test accuracy in percent, mean ± sample standard deviation over "
        "the n finished runs. Best is the best of a run's evaluations, chosen on the "
        "test split and so optimistic. Difference: last, paired over the seeds that "
        f"finished in both. {cells.emphasis(comparisons)}",
        header=[
            *(HEADINGS[name] for name in names),
            *["label bytes"] * has_sizes,
            "loss",
            "n",
            "last",
            "best",
            "difference",
            "95% interval",
            "pairs",
        ],
        rows=rows,
        text_columns=len(names) + has_sizes + 1,
    )


def tuning_table(
    comparisons: Sequence[Comparison], losses: Sequence[str]
) -> Table | None:
    """Default beside tuned, one row for every setup and loss; None where untuned."""
    names = [n for n in distinguishing(comparisons) if n != "learning_rate"]
    shown = [c for c in sort(comparisons, losses) if c.protocol]
    if not shown:
        return None
    by_setup: dict[tuple, dict[str | None, Comparison]] = {}
    for c in shown:
        key = (*(c.setting(name) for name in names), c.loss)
        by_setup.setdefault(key, {})[c.protocol] = c
    usual_n = cells.usual_number_of_runs([c.group for c in shown])
    return Table(
        name="tuning",
        title="Default and tuned learning rates",
        caption="Top-1 test accuracy after the last epoch in percent, "
        f"{cells.over_seeds(usual_n)}. Gain: tuned minus default, paired over seeds, "
        "with its 95% t-interval. A rate at the edge is the smallest or the largest "
        f"that was tried. {cells.emphasis(shown)}",
        header=[
            *(HEADINGS[name] for name in names),
            "loss",
            "default rate",
            "default",
            "tuned rate",
            "tuned",
            "gain",
            "95% interval",
            "pairs",
        ],
        rows=[_tuning_row(found, names, usual_n) for found in by_setup.values()],
        text_columns=len(names) + 1,
    )


def _tuning_row(
    found: dict[str | None, Comparison], names: Sequence[str], usual_n: int
) -> list[Cell]:
    either = next(iter(found.values()))
    default, tuned = found.get(DEFAULT), found.get(TUNED)
    choice = either.tuning
    if choice:
        without = "not run" if choice.learning_rate else "all diverged"
        default_rate = choice.default_learning_rate
        tuned_rate = cells.format_setting(choice.learning_rate)
        tuned_rate += " (edge)" * choice.at_edge
    else:
        default_rate = either.group.settings["learning_rate"]
        tuned_rate = cells.ABSENT
        without = "not tuned"
    gain = cells.difference_cells(Summary(0), 0)
    if default and tuned and default.group is tuned.group:
        gain[0] = Cell("same rate")
    elif default and tuned:
        finished = tuned.group.finished, default.group.finished
        gain = cells.difference_cells(statistics.pair(*finished, "top1_last"), 0)
    return [
        *setting_cells(either, names),
        Cell(either.loss),
        Cell(f"{default_rate:g}"),
        cells.accuracy_cell(default, usual_n, "not run"),
        Cell(tuned_rate),
        cells.accuracy_cell(tuned, usual_n, without),
        *gain,
    ]


def summary_columns(
    comparisons: Sequence[Comparison],
) -> tuple[list[str], list[list[Any]]]:
    """All settings and statistics as numbers of full precision, one row a group.

    A group whose learning rate is the default and the tuned one has two.
    """
    metrics = ("top1_last", "top1_best", "top5_last", "train_seconds")
    parts = ("mean", "sd", "half_width")
    header = [*results.SETTINGS, "protocol", "at_edge", "soft_label_bytes"]
    header += ["finished", "diverged"]
    header += [f"{metric}_{part}" for metric in metrics for part in parts]
    header += ["gradient_norm_first", "baseline", "pairs"]
    header += [f"difference_{part}" for part in parts]
    rows = []
    for c in comparisons:
        row = [c.group.settings[name] for name in results.SETTINGS]
        at_edge = c.tuning.at_edge if c.tuning and c.protocol == TUNED else None
        row += [c.protocol, at_edge, c.group.soft_label_bytes]
        row += [len(c.group.finished), len(c.group.diverged)]
        for metric in metrics:
            summary = c.group.summary(metric)
            row += [getattr(summary, part) for part in parts]
        row.append(c.group.summary("gradient_norm_first").mean)
        row += [c.baseline.loss if c.baseline else None, c.difference.n]
        row += [getattr(c.difference, part) for part in parts]
        rows.append(row)
    return header, rows


def in_order(
    comparisons: Iterable[Comparison], names: Sequence[str]
) -> dict[tuple, Comparison]:
    """The first of every condition: settings as they first appear, numbers ascending.

    Of learning rates the default comes first, then the tuned one.
    """
    conditions: dict[tuple, Comparison] = {}
    for c in comparisons:
        conditions.setdefault(c.condition, c)
    seen: dict[str, list] = {name: [] for name in names}
    for c in conditions.values():
        for name in names:
            if c.setting(name) not in seen[name]:
                seen[name].append(c.setting(name))
    for name, values in seen.items():
        if name == "learning_rate" or all(isinstance(v, int | float) for v in values):
            values.sort(key=rank)
    return dict(
        sorted(
            conditions.items(),
            key=lambda item: [seen[n].index(item[1].setting(n)) for n in names],
        )
    )


def rank(value: Any) -> tuple[int, Any]:
    """A sort key: protocols, then absent values, then numbers, then names."""
    first = (DEFAULT, TUNED, None)
    if value in first:
        return first.index(value), 0
    return len(first) + isinstance(value, str), value


def sort(comparisons: Sequence[Comparison], losses: Sequence[str]) -> list[Comparison]:
    """By condition, and by loss within one."""
    places = list(in_order(comparisons, distinguishing(comparisons)))
    return sorted(
        comparisons, key=lambda c: (places.index(c.condition), losses.index(c.loss))
    )


def setting_cells(comparison: Comparison, names: Sequence[str]) -> list[Cell]:
    """The settings that tell a group from others, its own learning rate among them."""
    return [
        Cell(
            cells.rate_text(comparison)
            if name == "learning_rate"
            else cells.format_setting(comparison.setting(name))
        )
        for name in names
    ]


def _difference_cells(comparison: Comparison) -> list[Cell]:
    if comparison.is_baseline:
        return [Cell("baseline"), Cell(cells.ABSENT), Cell(cells.ABSENT)]
    return cells.difference_cells(comparison.difference, comparison.verdict)
