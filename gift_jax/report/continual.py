"""Class-incremental training: accuracy over steps, its average, and forgetting.

The students of one order of classes are averaged; means, deviations and intervals are
over orders, as students of one order share its classes.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from gift_jax.pipeline import results
from gift_jax.pipeline.results import Row
from gift_jax.report import style
from gift_jax.report.formatting import (
    ABSENT,
    heading,
    signed_interval_text,
    signed_text,
    summary_text,
    value_text,
)
from gift_jax.report.groups import same_run, verdict
from gift_jax.report.markup import Cell, Table
from gift_jax.report.statistics import Summary, summarize

# What may differ between the steps of one curve; `continual_trained_on` stands for it.
_BY_STEP = ("trained_on", "dataset_fingerprint", "batch_size")
_SETTINGS = (
    *(n for n in results.SETTINGS if n not in _BY_STEP),
    *("distilled_dir", "data_seed", "continual_steps", "continual_trained_on"),
)
_FINGERPRINTS = (*results.IDENTITY, "continual_trained_on")


class Curve(NamedTuple):
    """All students of one setting and one kind of labels.

    Attributes:
      settings: A value for each setting, and `continual_steps`.
      teacher: Teacher whose labels they are, see `specs.continual.TEACHERS`.
      students: The row of every step, by order and seed.
    """

    settings: Mapping[str, object]
    teacher: str
    students: Mapping[tuple[int, int], Mapping[int, Row]]

    @property
    def steps(self) -> int:
        """Number of steps in all."""
        return int(str(self.settings["continual_steps"]))

    def whole(self) -> Iterator[tuple[tuple[int, int], list[Row]]]:
        """Students with all steps finished, and their rows in order."""
        for student, rows in self.students.items():
            found = [rows.get(step) for step in range(1, self.steps + 1)]
            if all(r and r["status"] == results.FINISHED for r in found):
                yield student, [r for r in found if r]

    @property
    def diverged(self) -> int:
        """Students that diverged at a step, and are in no mean."""
        return sum(
            any(row["status"] == results.DIVERGED for row in rows.values())
            for rows in self.students.values()
        )


def is_continual(row: Row) -> bool:
    """Whether a row is of a class-incremental training."""
    return row.get("continual_step") is not None


def curves(rows: Sequence[Row]) -> list[Curve]:
    """The rows of class-incremental training, put together.

    Raises:
      InputError: two runs are the same step of the same student.
    """
    found: dict[tuple, dict[tuple[int, int], dict[int, Row]]] = {}
    for row in filter(is_continual, rows):
        # A teacher that is trained anew has its step in its name.
        teacher = row["teacher"] and row["teacher"].partition("_continual=")[0]
        settings = {**row, "teacher": teacher}
        key = (*(settings.get(n) for n in _SETTINGS), row["continual_teacher"])
        students = found.setdefault(key, collections.defaultdict(dict))
        student = students[row["continual_order"], row["seed"]]
        other = student.setdefault(row["continual_step"], row)
        if other is not row:
            raise same_run(other, row)
    return [
        Curve(dict(zip(_SETTINGS, key, strict=False)), key[-1], students)
        for key, students in found.items()
    ]


def accuracies(curve: Curve) -> dict[int, np.ndarray]:
    """Accuracy after every step, (steps,) percent, by order, mean over students."""
    return _by_order({s: [r["top1_last"] for r in rows] for s, rows in curve.whole()})


def forgetting(rows: Sequence[Row]) -> float | None:
    """How much is lost of what was known, in points (Chaudhry et al., ECCV 2018).

        mean over tasks j < K of (max over steps k < K of a_kj) - a_Kj

    with a_kj the accuracy after step k on the test images of task j.

    Args:
      rows: Rows of the K steps of a student, in order.

    Returns:
      The mean; None for a single step, or where the accuracies of tasks were not
      recorded.
    """
    if len(rows) < 2:
        return None
    last, lost = rows[-1], []
    for task in range(1, len(rows)):
        name = f"top1_task{task}_last"
        if any(row.get(name) is None for row in rows[task - 1 :]):
            return None
        lost.append(max(row[name] for row in rows[task - 1 : -1]) - last[name])
    return float(np.mean(lost))


def common_settings(found: Sequence[Curve]) -> dict[str, str]:
    """The settings that all curves have in common, as they are read."""
    values = {
        name: {value_text(curve.settings[name]) for curve in found}
        for name in found[0].settings
        if name not in _FINGERPRINTS
    }
    return {
        _heading(name): value
        for name, (value, *others) in values.items()
        if not others and value != ABSENT
    }


def _heading(name: str) -> str:
    return heading(name).removeprefix("continual ")


def _by_order(measured: Mapping[tuple[int, int], Any]) -> dict[int, np.ndarray]:
    """Measurements of students by order and seed, as means over an order's students."""
    of_orders = collections.defaultdict(list)
    for (order, _), value in measured.items():
        of_orders[order].append(value)
    return {
        order: np.mean(np.array(found, float), axis=0)
        for order, found in sorted(of_orders.items())
    }


def _interval_text(summary: Summary, signed: bool = False) -> str:
    if summary.interval is None:
        return ABSENT
    if signed:
        return signed_interval_text(summary.interval)
    return "[{:.2f}, {:.2f}]".format(*summary.interval)


def _setting_text(curve: Curve, name: str) -> str:
    text = value_text(curve.settings[name])
    return text[:6] if name in _FINGERPRINTS else text


def _telling(found: Sequence[Curve]) -> list[str]:
    """The settings besides the loss that tell curves apart."""
    return [
        name
        for name in found[0].settings
        if name != "loss" and len({c.settings[name] for c in found}) > 1
    ]


def tables(found: Sequence[Curve]) -> list[Table]:
    """Accuracy over steps, and its average and what is forgotten."""
    names = _telling(found)
    left = [*map(_heading, names), "loss", "labels of"]

    def place(curve: Curve) -> list[Cell | str]:
        values = [_setting_text(curve, name) for name in (*names, "loss")]
        return [*values, curve.teacher]

    steps = max(curve.steps for curve in found)
    of_steps, averages = [], []
    by_place = {(*place(curve)[:-1], curve.teacher): curve for curve in found}
    for curve in found:
        cells = [summary_text(summarize(column)) for column in _by_step(curve)]
        of_steps.append([*place(curve), *cells, *[ABSENT] * (steps - len(cells))])
        future = by_place.get((*place(curve)[:-1], "future"))
        averages.append([*place(curve), *_averages(curve, future)])
    n = sorted({len(accuracies(curve)) for curve in found})
    seeds = sorted({len({s for _, s in c.students}) for c in found})
    over = (
        "the mean over the students of an order (as many as "
        f"{' or '.join(map(str, seeds))}), over {' or '.join(map(str, n))} orders"
    )
    return [
        Table(
            "continual_steps",
            "Class-incremental: accuracy over steps",
            "Top-1 accuracy in percent on the test images of the classes so far, among "
            f"these classes; mean ± sample standard deviation of {over}. Students that "
            "diverged at a step are in no mean.",
            left,
            [f"step {step}" for step in range(1, steps + 1)],
            of_steps,
        ),
        Table(
            "continual",
            "Class-incremental: average accuracy and forgetting",
            "Average: of the accuracies after all steps. Forgetting: the best accuracy "
            "on the classes of a step after any step but the last, minus that after "
            "the last, mean over all steps but the last, in points. Labels: of a "
            "teacher of all classes (future), its logits of the classes so far "
            "(masked), or a teacher trained anew on the classes so far (retrained). "
            "Difference: of averages to future, paired over the students that finished "
            "in both and then over orders; in bold or italic where its 95% interval "
            "excludes zero and no student of either diverged. Mean ± sample standard "
            f"deviation of {over}, with 95% t-intervals.",
            left,
            [
                *("average accuracy", "95% interval", "after the last step"),
                *("forgetting", "95% interval", "difference", "95% interval"),
            ],
            averages,
        ),
    ]


def _averages(curve: Curve, future: Curve | None) -> list[Cell | str]:
    of_orders = accuracies(curve)
    average = summarize(a.mean() for a in of_orders.values())
    last = summarize(a[-1] for a in of_orders.values())
    lost = {student: forgetting(rows) for student, rows in curve.whole()}
    forgotten = Summary()
    if None not in lost.values():
        forgotten = summarize(float(f) for f in _by_order(lost).values())
    difference: list[Cell | str] = [ABSENT, ABSENT]
    if future is not None and future is not curve:
        paired = _difference(curve, future)
        if paired.mean is not None:
            cell = Cell(signed_text(paired.mean), verdict(paired, curve, future))
            difference = [cell, _interval_text(paired, signed=True)]
    students = f" ({curve.diverged} of {len(curve.students)} students diverged)"
    return [
        summary_text(average) + students * bool(curve.diverged),
        _interval_text(average),
        summary_text(last),
        summary_text(forgotten),
        _interval_text(forgotten),
        *difference,
    ]


def _difference(curve: Curve, other: Curve) -> Summary:
    """Difference of averages over steps: of students finished in both, over orders."""
    ours, others = (
        {s: np.mean([row["top1_last"] for row in rows]) for s, rows in c.whole()}
        for c in (curve, other)
    )
    both = {s: ours[s] - others[s] for s in ours if s in others}
    return summarize(float(d) for d in _by_order(both).values())


def data(found: Sequence[Curve]) -> list[list[Any]]:
    """The numbers of `figure`, as rows with a header."""
    names = _telling(found)
    numbers = ["step", "orders", "mean", "half_width"]
    return [
        [*names, "loss", "continual_teacher", *numbers],
        *(
            [*map(curve.settings.get, [*names, "loss"]), curve.teacher, step, *number]
            for curve in found
            for step, column in enumerate(_by_step(curve), start=1)
            for s in [summarize(column)]
            for number in [(s.n, s.mean, s.half_width)]
        ),
    ]


def _by_step(curve: Curve) -> list[tuple[float, ...]]:
    return list(zip(*accuracies(curve).values(), strict=True))


@style.in_style
def figure(found: Sequence[Curve]) -> Figure:
    """Accuracy over steps with 95% intervals, a panel for each kind of labels."""
    names = _telling(found)
    panels: dict[tuple, list[Curve]] = collections.defaultdict(list)
    for curve in found:
        panels[(*(_setting_text(curve, n) for n in names), curve.teacher)].append(curve)
    losses = list(dict.fromkeys(str(curve.settings["loss"]) for curve in found))
    drawing, grid = style.new_panels(len(panels), columns=3, row=2, margin=0.5)
    top = 1.0
    for axes, (key, members) in zip(grid.flat, panels.items(), strict=False):
        axes.set_title(", ".join(key))
        axes.grid(True)
        axes.set_xlabel("step")
        for curve in members:
            index = losses.index(str(curve.settings["loss"]))
            summaries = [summarize(column) for column in _by_step(curve)]
            reached = [(s.mean or 0) + (s.half_width or 0) for s in summaries]
            top = max([top, *reached])
            shift = 0.06 * (index - (len(losses) - 1) / 2)
            axes.errorbar(
                np.arange(1, len(summaries) + 1) + shift,
                [s.mean for s in summaries],
                [s.half_width or 0 for s in summaries],
                capsize=2,
                elinewidth=0.8,
                **style.line_style(index),
            )
            axes.set_xticks(range(1, curve.steps + 1))
    for axes in grid[:, 0]:
        axes.set_ylabel(style.ACCURACY)
    grid[0, 0].set_ylim(0, min(1.05 * top, 100))
    style.add_legend(drawing, losses, losses)
    return drawing
