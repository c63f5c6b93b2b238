"""What is in the tables.

Bold is better than the baseline and italic is worse, each by a difference whose 95%
interval excludes zero; nothing else is bold or italic.
"""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gift_jax.pipeline.results import Row
from gift_jax.report.formatting import (
    ABSENT,
    heading,
    setting_text,
    signed_interval_text,
    signed_text,
    summary_text,
    value_text,
)
from gift_jax.report.groups import (
    ALL_BUT_LOSS,
    BYTES,
    DEFAULT,
    TUNED,
    Group,
    compare,
    distinguishing,
    is_at_edge,
    sort,
)
from gift_jax.report.markup import Cell, Table
from gift_jax.report.reading import Curve, RunKey, run_key
from gift_jax.report.statistics import Summary, pair, summarize
from gift_jax.runtime.units import readable_size

# With more losses than these the losses are rows, so that the table stays narrow.
_MAX_LOSS_COLUMNS = 6
_T_SQUARED = "-t_squared=True"


def _settings(group: Group, names: Iterable[str], tuned: str = "") -> list[str]:
    return [setting_text(group, name, tuned=tuned) for name in names]


def difference_cells(summary: Summary, verdict: int) -> list[Cell | str]:
    """A paired difference with its verdict, its interval, and how many pairs."""
    if summary.mean is None:
        return [ABSENT] * 3
    interval = "none (n = 1)" if summary.n == 1 else "none (no spread)"
    if summary.interval:
        interval = signed_interval_text(summary.interval)
    return [Cell(signed_text(summary.mean), verdict), interval, str(summary.n)]


def _to_baseline(group: Group) -> list[Cell | str]:
    if group.is_baseline:
        return ["baseline", ABSENT, ABSENT]
    return difference_cells(group.difference, group.verdict)


def accuracy_table(groups: Sequence[Group], losses: Sequence[str]) -> Table:
    """Top-1 after the last epoch: losses against all that they were run under."""
    by_place = {(g.of(ALL_BUT_LOSS), g.loss): g for g in groups}
    first: dict[tuple, Group] = {}
    for g in sort(groups, losses):
        first.setdefault(g.of(ALL_BUT_LOSS), g)
    usual_n, names = _usual_number_of_runs(groups), distinguishing(groups)
    settings = [_settings(g, names, TUNED) for g in first.values()]
    accuracies = [
        [_accuracy_cell(by_place.get((place, loss)), usual_n) for loss in losses]
        for place in first
    ]
    left, header = [heading(name) for name in names], list(losses)
    if len(losses) > _MAX_LOSS_COLUMNS:
        left, header = ["loss"], [", ".join(texts) or "top-1" for texts in settings]
        settings = [[loss] for loss in losses]
        accuracies = [list(row) for row in zip(*accuracies, strict=True)]
    return Table(
        "accuracy",
        "Accuracy",
        "Top-1 test accuracy after the last epoch in percent, "
        f"{_over_seeds(usual_n)}. {_emphasis(groups)}",
        left,
        header,
        [[*of, *row] for of, row in zip(settings, accuracies, strict=True)],
    )


def comparison_table(groups: Sequence[Group], losses: Sequence[str]) -> Table:
    """One row for every group: last, best and the difference to the baseline."""
    names = distinguishing(groups)
    with_bytes = len({g.settings[BYTES] for g in groups}) > 1
    return Table(
        "comparison",
        "Comparison with the baseline",
        "Top-1 test accuracy in percent, mean ± sample standard deviation over "
        "the n finished runs. Best is the best of a run's evaluations, chosen on the "
        "test split and so optimistic. Difference: last, paired over the seeds that "
        f"finished in both. {_emphasis(groups)}",
        [*map(heading, names), *["label bytes"] * with_bytes, "loss"],
        ["n", "last", "best", "difference", "95% interval", "pairs"],
        [
            [
                *_settings(g, names),
                *[_bytes_text(g)] * with_bytes,
                g.loss,
                _runs_text(g),
                summary_text(g.summary("top1_last")),
                summary_text(g.summary("top1_best")),
                *_to_baseline(g),
            ]
            for g in sort(groups, losses)
        ],
    )


def _bytes_text(group: Group) -> str:
    size = group.settings[BYTES]
    return ABSENT if size is None else readable_size(size)


def tuning_table(groups: Sequence[Group], losses: Sequence[str]) -> Table | None:
    """Default beside tuned, one row for a loss and an optimizer; None where untuned."""
    names = [n for n in distinguishing(groups) if n != "learning_rate"]
    shown = [g for g in sort(groups, losses) if g.rate]
    if not shown:
        return None
    usual_n = _usual_number_of_runs(shown)
    by_setting: dict[tuple, dict[str | None, Group]] = {}
    for g in shown:
        by_setting.setdefault((*g.of(names), g.loss), {})[g.rate] = g
    rows = []
    for found in by_setting.values():
        either = next(iter(found.values()))
        default_rate, tuned_rate, why = _rates(either)
        rows.append(
            [
                *_settings(either, names),
                either.loss,
                default_rate,
                _accuracy_cell(found.get(DEFAULT), usual_n, "not run"),
                tuned_rate,
                _accuracy_cell(found.get(TUNED), usual_n, why),
                *_gain(found.get(DEFAULT), found.get(TUNED)),
            ]
        )
    return Table(
        "tuning",
        "Default and tuned learning rates",
        "Top-1 test accuracy after the last epoch in percent, "
        f"{_over_seeds(usual_n)}. Gain: tuned minus default, paired over seeds, "
        "with its 95% t-interval. A rate at the edge is the smallest or the largest "
        f"that was tried. {_emphasis(shown)}",
        [*map(heading, names), "loss"],
        [
            "default rate", "default", "tuned rate", "tuned",
            "gain", "95% interval", "pairs",
        ],
        rows,
    )  # fmt: skip


def _rates(group: Group) -> tuple[str, str, str]:
    """The default rate, the tuned one, and why nothing was run with it."""
    choice = group.choice
    if choice is None:
        return f"{group.settings['learning_rate']:g}", ABSENT, "not tuned"
    tuned = value_text(choice["learning_rate"])
    why = "not run" if choice["learning_rate"] else "all diverged"
    default = f"{choice['default_learning_rate']:g}"
    return default, tuned + " (edge)" * is_at_edge(choice), why


def _gain(default: Group | None, tuned: Group | None) -> list[Cell | str]:
    if default is None or tuned is None:
        return [ABSENT] * 3
    if default.key == tuned.key:
        return ["same rate", ABSENT, ABSENT]
    return difference_cells(pair(tuned.finished, default.finished), 0)


def gradient_table(
    groups: Sequence[Group], losses: Sequence[str], curves: Mapping[RunKey, Curve]
) -> Table | None:
    """Norms at initialisation and at the end, beside the accuracy.

    None where no norm was recorded. A group whose rate is default and tuned stands
    there once.
    """
    once: dict[tuple, Group] = {}
    for g in sort(groups, losses):
        if _first_norms(g):
            once.setdefault(g.key, g)
    shown = list(once.values())
    if not shown:
        return None
    usual_n, names = _usual_number_of_runs(shown), distinguishing(groups)
    baselines = ", ".join(sorted({g.baseline.loss for g in shown if g.baseline}))

    def last_norms(group: Group) -> list[float]:
        found = [curves.get(run_key(row)) for row in group.finished.values()]
        return [c.gradient[-1, 1] for c in found if c and len(c.gradient)]

    return Table(
        "gradient_norms",
        "Gradient norms",
        "Global norm of the gradient of the loss, without weight decay: of the "
        "first batch at initialisation (mean over seeds), as a multiple of the "
        "baseline's (mean over seeds of the ratio of the two runs of a seed), and as "
        "the mean over the steps of the last epoch of the runs that finished. "
        "Accuracy: top-1 after the last epoch in percent, "
        f"{_over_seeds(usual_n)}. {_emphasis(groups)}",
        [*map(heading, names), "loss"],
        [
            "at initialisation", f"over {baselines}" if baselines else "ratio",
            "in the last epoch", "top-1",
        ],
        [
            [
                *_settings(g, names),
                g.loss,
                _mean_text(_first_norms(g).values(), ".3g"),
                _ratio_text(g),
                _mean_text(last_norms(g), ".3g"),
                _accuracy_cell(g, usual_n),
            ]
            for g in shown
        ],
    )  # fmt: skip


def t_squared_table(groups: Sequence[Group], choices: Sequence[Row]) -> Table | None:
    """KL against itself times T²; None where not both were run."""
    labels = {g.loss for g in groups}
    with_both = [label for label in labels if label + _T_SQUARED in labels]
    # Rows come as trainings end: their order says nothing.
    plain = min(with_both, key=lambda label: (len(label), label), default="")
    multiplied = plain + _T_SQUARED
    both = {g.key: g for g in groups if g.loss in (plain, multiplied)}
    alone = [dataclasses.replace(g, rate=None, choice=None) for g in both.values()]
    compared = compare(alone, plain, choices)
    pairs = [g for g in compared if g.loss == multiplied and g.baseline]
    if not pairs:
        return None
    names = list(dict.fromkeys([*distinguishing(pairs), "learning_rate"]))
    usual_n = _usual_number_of_runs([h for g in pairs for h in (g, g.baseline) if h])
    return Table(
        "t_squared",
        "Is it the missing T²?",
        f"{plain} leaves out the factor T² that gives the gradient its usual "
        "size; an optimizer that follows the size of the gradient then takes smaller "
        f"steps. Where {multiplied} at the same learning rate, or {plain} at a tuned "
        "one, does as well as other losses, a low accuracy comes of the size of the "
        "gradient; where neither does, it comes of something else. Under SGD a rate "
        "that is T² times larger makes up for the factor only without weight "
        "decay, which it multiplies as well. Ratio of the gradient norms at "
        "initialisation: mean over seeds. Top-1 test accuracy after "
        f"the last epoch in percent, {_over_seeds(usual_n)}; difference of the "
        "two, paired over seeds, with its 95% t-interval, in bold or italic where it "
        "excludes zero and no run of either diverged.",
        list(map(heading, names)),
        ["gradient ratio", plain, multiplied, "difference", "95% interval", "pairs"],
        [
            [
                *_settings(g, names, TUNED),
                _ratio_text(g),
                _accuracy_cell(g.baseline, usual_n),
                _accuracy_cell(g, usual_n),
                *_to_baseline(g),
            ]
            for g in sort(pairs, [multiplied])
        ],
    )


def summary_rows(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """All settings and statistics as numbers of full precision, one row per group.

    A group whose learning rate is the default and the tuned one has two.
    """
    rows = []
    for g in groups:
        at_edge = is_at_edge(g.choice) if g.choice and g.rate == TUNED else None
        row = {**g.settings, "rate": g.rate, "at_edge": at_edge}
        row |= {"finished": len(g.finished), "diverged": len(g.diverged)}
        for name in ("top1_last", "top1_best", "top5_last", "train_seconds"):
            row |= _numbers(name, g.summary(name))
        row["gradient_norm_first"] = g.summary("gradient_norm_first").mean
        row["baseline"] = g.baseline.loss if g.baseline else None
        row |= {"pairs": g.difference.n, **_numbers("difference", g.difference)}
        rows.append(row)
    return rows


def _numbers(name: str, summary: Summary) -> dict[str, float | None]:
    parts = ("mean", "sd", "half_width")
    return {f"{name}_{part}": getattr(summary, part) for part in parts}


def _usual_number_of_runs(groups: Sequence[Group]) -> int:
    """How many runs finished in most groups; of equally frequent numbers the larger."""
    numbers = collections.Counter(len(group.finished) for group in groups)
    del numbers[0]
    return max(numbers, key=lambda n: (numbers[n], n), default=0)


def _accuracy_cell(group: Group | None, usual_n: int, absent: str = ABSENT) -> Cell:
    """Top-1 after the last epoch; with n where it is not the usual one."""
    if group is None:
        return Cell(absent)
    summary = group.summary("top1_last")
    note = "" if summary.n == usual_n else f"n = {summary.n}"
    if group.diverged:
        note = f"{len(group.diverged)} of {len(group.rows)} diverged"
    if not summary.n:
        return Cell(note)
    text = summary_text(summary) + (f" ({note})" if note else "")
    return Cell(text, group.verdict)


def _runs_text(group: Group) -> str:
    """How many runs finished, and when others diverged."""
    if not group.diverged:
        return str(len(group.finished))
    recorded = [row.get("diverged_step") for row in group.diverged.values()]
    steps = sorted({step for step in recorded if step is not None})
    when = f", step{'s' * (len(steps) > 1)} {steps[0]}" if steps else ""
    when += f" to {steps[-1]}" if len(steps) > 1 else ""
    return f"{len(group.finished)} ({len(group.diverged)} diverged{when})"


def _first_norms(group: Group) -> dict[int, float]:
    """First norms by seed; also of diverged runs, as these began like the others."""
    norms = {row["seed"]: row.get("gradient_norm_first") for row in group.rows}
    return {seed: norm for seed, norm in norms.items() if norm}


def _ratio_text(group: Group) -> str:
    norms = _first_norms(group)
    others = _first_norms(group.baseline) if group.baseline else {}
    return _mean_text([norms[s] / others[s] for s in norms if s in others], ".4g")


def _mean_text(values: Iterable[float], form: str) -> str:
    mean = summarize(values).mean
    return ABSENT if mean is None else format(mean, form)


def _over_seeds(usual_n: int) -> str:
    """What a mean of accuracies is over, for a caption."""
    unless = "where no other n is given"
    if usual_n == 1:
        return f"of one run (n = 1: no standard deviation) {unless}"
    return f"mean ± sample standard deviation over n = {usual_n} seeds {unless}"


def _emphasis(groups: Sequence[Group]) -> str:
    """What bold and italic mean, for a caption."""
    baselines = sorted({g.baseline.loss for g in groups if g.baseline})
    if not baselines:
        return "No baseline to compare with: nothing is bold."
    kinds = " Tuned is compared with tuned and default with default."
    return (
        f"Bold is better than {', '.join(baselines)} and italic is worse, where the "
        "95% t-interval of the paired difference excludes zero and no run of either "
        f"diverged.{kinds if any(g.rate for g in groups) else ''}"
    )
