"""Across architectures: distilled with one network, trained on others."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gift_jax.report import style
from gift_jax.report.formatting import (
    ABSENT,
    heading,
    setting_text,
    signed_text,
    summary_text,
)
from gift_jax.report.groups import ALL_BUT_LOSS, TUNED, Group, verdict
from gift_jax.report.markup import Cell, Table
from gift_jax.report.statistics import Summary, pair

_NETWORKS = ("teacher", "student")
# Settings that are, or follow from, the networks of a cell.
_CELL = (*_NETWORKS, "code", "trained_on")
_SETTINGS = (*(n for n in ALL_BUT_LOSS if n not in _CELL), "data_seed", "loss")


class Matrix(NamedTuple):
    """Groups of one setting by the teacher and the student's network.

    Attributes:
      first: Any of the groups, for their settings.
      cells: Groups by teacher, that images are distilled with and labelled by, and
        student.
    """

    first: Group
    cells: Mapping[tuple, Group]

    @property
    def teachers(self) -> list[str]:
        """Teachers in the order in which they first appear."""
        return list(dict.fromkeys(teacher for teacher, _ in self.cells))

    @property
    def students(self) -> list[str]:
        """Students, those whose network images were distilled with first."""
        found = dict.fromkeys(student for _, student in self.cells)
        both = [t for t in self.teachers if t in found]
        return list(dict.fromkeys([*both, *found]))

    def drop(self, teacher: str, student: str) -> Summary:
        """Accuracy minus that of the network of the images, paired over seeds."""
        cell, own = self.cells.get((teacher, student)), self.cells.get((teacher,) * 2)
        if cell is None or own is None or cell is own:
            return Summary()
        return pair(cell.finished, own.finished)

    def mean_drop(self, teacher: str) -> float | None:
        """Mean drop over the other students."""
        drops = [self.drop(teacher, student).mean for student in self.students]
        found = [drop for drop in drops if drop is not None]
        return float(np.mean(found)) if found else None


def matrices(groups: Sequence[Group]) -> list[Matrix]:
    """Matrices with a diagonal and more, and with one group in every cell."""
    members: dict[tuple, list[Group]] = collections.defaultdict(list)
    for g in groups:
        if g.settings["teacher"] is not None:
            members[g.of(_SETTINGS)].append(g)
    found = [
        Matrix(some[0], cells)
        for some in members.values()
        if len(cells := {g.of(_NETWORKS): g for g in some}) == len(some)
    ]
    return [m for m in found if any(m.mean_drop(t) is not None for t in m.teachers)]


def _row_heading(found: Sequence[Matrix]) -> str:
    """What the network of a row did; where all images are the same, it only labels."""
    made_alike = all(
        len({g.settings["distilled_fingerprint"] for g in m.cells.values()}) == 1
        for m in found
    )
    return "labelled by" if made_alike else "distilled with"


def _telling(found: Sequence[Matrix]) -> list[str]:
    several = [n for n in _SETTINGS if len({m.first.setting(n) for m in found}) > 1]
    return [n for n in several if n != "loss"]


def table(found: Sequence[Matrix]) -> Table | None:
    """A row for every network that made or labelled images; None without any."""
    if not found:
        return None
    students = list(dict.fromkeys(s for m in found for s in m.students))
    names = _telling(found)

    def cell(matrix: Matrix, teacher: str, student: str) -> Cell:
        group = matrix.cells.get((teacher, student))
        if group is None:
            return Cell(ABSENT)
        text = summary_text(group.summary("top1_last"))
        drop = matrix.drop(teacher, student)
        if drop.mean is not None:
            text += f" ({signed_text(drop.mean)})"
        if group.diverged:
            text += f" ({len(group.diverged)} of {len(group.rows)} diverged)"
        own = matrix.cells.get((teacher, teacher))
        return Cell(text, verdict(drop, group, own))

    def mean_text(matrix: Matrix, teacher: str) -> str:
        mean = matrix.mean_drop(teacher)
        return ABSENT if mean is None else signed_text(mean)

    return Table(
        "cross_architecture",
        "Across architectures",
        "Top-1 accuracy after the last epoch in percent, mean ± sample standard "
        "deviation over seeds. A row is of a network that labels the images, and that "
        "they were distilled with where it says so; a column of the network that is "
        "trained on them. In parentheses the drop from the diagonal: minus the "
        "accuracy of the network of the row, paired over seeds, in bold or italic "
        "where its 95% interval excludes zero and no run of either diverged. Networks "
        "differ in what they can reach on any images: compare along a column, too.",
        [*map(heading, names), "loss", _row_heading(found)],
        [*students, "mean drop"],
        [
            [
                *(setting_text(m.first, name, tuned=TUNED) for name in names),
                m.first.loss,
                teacher,
                *(cell(m, teacher, student) for student in students),
                mean_text(m, teacher),
            ]
            for m in found
            for teacher in m.teachers
        ],
    )


@style.in_style
def figure(found: Sequence[Matrix]) -> Figure:
    """A panel for each matrix: accuracies in colour, with the drops below them."""
    names = _telling(found)
    rows = max(len(m.teachers) for m in found)
    columns = 2 if max(len(m.students) for m in found) <= 4 else 1
    drawing, grid = style.new_panels(
        len(found), columns=columns, row=0.8 + 0.4 * rows, margin=0.2, sharey=False
    )
    means = [
        mean
        for m in found
        for g in m.cells.values()
        if (mean := g.summary("top1_last").mean) is not None
    ]
    for axes, m in zip(grid.flat, found, strict=False):
        _draw(axes, m, min(means), max(means))
        title = [setting_text(m.first, name, tuned=TUNED) for name in names]
        axes.set_title(", ".join([*title, m.first.loss]))
    return drawing


def _draw(axes: Axes, matrix: Matrix, low: float, high: float) -> None:
    shown = np.full((len(matrix.teachers), len(matrix.students)), np.nan)
    middle = (low + high) / 2
    for row, teacher in enumerate(matrix.teachers):
        for column, student in enumerate(matrix.students):
            group = matrix.cells.get((teacher, student))
            mean = group.summary("top1_last").mean if group else None
            if mean is None:
                continue
            shown[row, column] = mean
            drop = matrix.drop(teacher, student).mean
            below = "" if drop is None else f"\n{drop:+.1f}".replace("-", "\u2212")
            axes.text(
                column, row, f"{mean:.1f}{below}", ha="center", va="center", fontsize=7,
                color="white" if mean > middle else "black",
            )  # fmt: skip
    axes.imshow(shown, cmap="Blues", vmin=low - 0.1, vmax=high + 0.1, aspect="auto")
    short = [name.partition("-")[0] for name in matrix.students]
    axes.set_xticks(
        range(len(short)), [n.replace("_modified", "\nmodified") for n in short]
    )
    axes.set_yticks(
        range(len(matrix.teachers)), [t.partition("-")[0] for t in matrix.teachers]
    )
    axes.set_xlabel("trained on")
    axes.set_ylabel(_row_heading([matrix]))
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)


def data(found: Sequence[Matrix]) -> list[list[Any]]:
    """The numbers of `figure`, as rows with a header."""
    names = [*_telling(found), "loss"]
    numbers = ["n", "mean", "sd", "drop", "drop_half_width"]
    rows: list[list[Any]] = [[*names, *_NETWORKS, *numbers]]
    for m in found:
        for (teacher, student), g in m.cells.items():
            s, drop = g.summary("top1_last"), m.drop(teacher, student)
            values = [s.n, s.mean, s.sd, drop.mean, drop.half_width]
            settings = [m.first.setting(name) for name in names]
            rows.append([*settings, teacher, student, *values])
    return rows
