"""How settings and numbers are written in tables and plots."""

import collections
from collections.abc import Sequence
from typing import Any

from gift_jax.report.comparison import Comparison
from gift_jax.report.markup import Cell
from gift_jax.report.statistics import Group, Summary
from gift_jax.report.tuning import DEFAULT, TUNED

ABSENT = "\N{EN DASH}"

HEADINGS = {
    "dataset": "dataset",
    "distill": "distilled",
    "ipc": "IPC",
    "teacher": "teacher",
    "soft_labels": "soft labels",
    "label_format": "label format",
    "views": "views",
    "augment": "augmentation",
    "student": "student",
    "epochs": "epochs",
    "batch_size": "batch size",
    "optimizer": "optimizer",
    "learning_rate": "learning rate",
    "weight_decay": "weight decay",
    "schedule": "schedule",
    "loss": "loss",
}


def format_setting(value: Any) -> str:
    """A setting as it is read."""
    if value is None:
        return ABSENT
    return f"{value:g}" if isinstance(value, float) else str(value)


def condition_text(comparison: Comparison, name: str) -> str:
    """A setting of a condition; tuned learning rates, one a loss, have no number."""
    text = format_setting(comparison.setting(name))
    if name == "learning_rate" and comparison.protocol == DEFAULT:
        rate = format_setting(comparison.group.settings[name])
        return f"{rate} (default)"
    return text


def rate_text(comparison: Comparison) -> str:
    """The learning rate of a group, and the protocol that it is by."""
    text = format_setting(comparison.group.settings["learning_rate"])
    if comparison.protocol is None:
        return text
    at_edge = comparison.tuning is not None and comparison.tuning.at_edge
    mark = ", edge" if comparison.protocol == TUNED and at_edge else ""
    return f"{text} ({comparison.protocol}{mark})"


def signed(value: float) -> str:
    """Two decimals with a sign, the minus a true one.

    >>> signed(1.25)
    '+1.25'
    """
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def bytes_text(size: float | None) -> str:
    """A size in decimal units.

    >>> bytes_text(12_345_678)
    '12.3 MB'
    """
    if size is None:
        return ABSENT
    power = min(len(f"{size:.0f}") - 1, 14) // 3
    return f"{size / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def summary_text(summary: Summary) -> str:
    """Mean and standard deviation of accuracies."""
    if summary.mean is None:
        return ABSENT
    if summary.sd is None:
        return f"{summary.mean:.2f}"
    return f"{summary.mean:.2f} ± {summary.sd:.2f}"


def usual_number_of_runs(groups: Sequence[Group]) -> int:
    """How many runs finished in most groups; of two numbers the larger."""
    numbers = collections.Counter(len(group.finished) for group in groups)
    del numbers[0]
    return max(numbers, key=lambda n: (numbers[n], n), default=0)


def accuracy_cell(
    comparison: Comparison | None, usual_n: int, absent: str = ABSENT
) -> Cell:
    """Top-1 after the last epoch; with n where it is not the usual one."""
    if comparison is None:
        return Cell(absent)
    group = comparison.group
    summary = group.summary("top1_last")
    note = "" if summary.n == usual_n else f"n = {summary.n}"
    if group.diverged:
        note = f"{len(group.diverged)} of {group.runs} diverged"
    if not summary.n:
        return Cell(note)
    text = summary_text(summary) + (f" ({note})" if note else "")
    return Cell(text, comparison.verdict)


def runs_text(group: Group) -> str:
    """How many runs finished, and when others diverged."""
    if not group.diverged:
        return str(len(group.finished))
    rows = group.diverged.values()
    steps = sorted(row["diverged_step"] for row in rows if _has_step(row))
    when = f", step {steps[0]}" if steps else ""
    if steps and steps[-1] > steps[0]:
        when = f", steps {steps[0]} to {steps[-1]}"
    return f"{len(group.finished)} ({len(group.diverged)} diverged{when})"


def _has_step(row: Any) -> bool:
    return isinstance(row.get("diverged_step"), int)


def difference_cells(difference: Summary, verdict: int) -> list[Cell]:
    """A paired difference, its interval and the number of pairs."""
    if difference.mean is None:
        return [Cell(ABSENT), Cell(ABSENT), Cell(ABSENT)]
    if difference.interval:
        low, high = difference.interval
        interval = f"[{signed(low)}, {signed(high)}]"
    else:
        interval = "none (n = 1)" if difference.n == 1 else "none (no spread)"
    return [
        Cell(signed(difference.mean), verdict),
        Cell(interval),
        Cell(str(difference.n)),
    ]


def over_seeds(usual_n: int) -> str:
    """What a mean of accuracies is over, for a caption."""
    unless = "where no other n is given"
    if usual_n == 1:
        return f"of one run (n = 1: no standard deviation) {unless}"
    return f"mean ± sample standard deviation over n = {usual_n} seeds {unless}"


def emphasis(comparisons: Sequence[Comparison]) -> str:
    """What bold and italic mean, for a caption."""
    baselines = {c.baseline.loss for c in comparisons if c.baseline}
    if not baselines:
        return "No baseline to compare with: nothing is bold."
    protocols = ""
    if any(c.protocol for c in comparisons):
        protocols = " Tuned is compared with tuned and default with default."
    return (
        f"Bold is better than {', '.join(sorted(baselines))} and italic is worse, "
        "where the 95% t-interval of the paired difference excludes zero and no run of "
        f"either diverged.{protocols}"
    )
