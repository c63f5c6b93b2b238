"""Reads the runs of work directories."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gift_jax.pipeline.results import (
    RESULTS_FILE,
    TUNING_FILE,
    latest_rows,
    parse_object,
)
from gift_jax.report import tuning
from gift_jax.runtime.progress import METRICS_FILE

FINISHED, DIVERGED = "finished", "diverged"

RunKey = tuple[pathlib.Path, str]


@dataclasses.dataclass(frozen=True)
class Results:
    """The results of work directories.

    Attributes:
      rows: One a run; of a run that was made anew, the latest. "workdir" is the
        directory that it is of.
      tunings: The latest choice of a learning rate for each settings.
      unreadable: What is wrong with the lines that were passed over.
    """

    rows: list[dict[str, Any]]
    tunings: list[tuning.Tuning]
    unreadable: list[str]


def read_results(workdirs: Sequence[pathlib.Path]) -> Results:
    """Reads the results and the tuned learning rates of work directories.

    Raises:
      FileNotFoundError: one of them has no results.
      ValueError: one of them has no row that can be read.
    """
    rows, tunings, unreadable = [], [], []
    for workdir in workdirs:
        of_workdir, unreadable_rows = _read_rows(workdir)
        rows += of_workdir
        chosen, unreadable_choices = _read_tunings(workdir)
        tunings += chosen
        prefix = f"{workdir.name}/" if len(workdirs) > 1 else ""
        unreadable += [f"{prefix}{RESULTS_FILE} {why}" for why in unreadable_rows]
        unreadable += [f"{prefix}{TUNING_FILE} {why}" for why in unreadable_choices]
    return Results(rows, tuning.latest(tunings), unreadable)


def _read_rows(workdir: pathlib.Path) -> tuple[list[dict[str, Any]], list[str]]:
    path = workdir / RESULTS_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: give a work directory in which "
            "`python -m gift_jax.main` has finished a run"
        )
    rows, unreadable = latest_rows(path.read_text(errors="replace"), parse_row)
    if not rows:
        found = "no line"
        if unreadable:
            found = f"only lines that cannot be read ({unreadable[0]})"
        raise ValueError(
            f"{path} holds {found}, expected one JSON "
            "object a run: run `python -m gift_jax.main` again to have finished runs "
            "added"
        )
    return [{**row, "workdir": workdir} for row in rows], unreadable


def _read_tunings(workdir: pathlib.Path) -> tuple[list[tuning.Tuning], list[str]]:
    path = workdir / TUNING_FILE
    tunings, unreadable = [], []
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            tunings.append(tuning.parse_tuning(line))
        except ValueError as error:
            unreadable.append(f"line {number}: {error}")
    return tunings, unreadable


def parse_row(line: str) -> dict[str, Any]:
    """Parses and checks a line of the results file.

    Raises:
      ValueError: it is no row; the message says why.
    """
    row = parse_object(line)
    for name in ("run_id", "loss", "optimizer", "seed", "status"):
        if not isinstance(row.get(name), str | int):
            raise ValueError(f"{name} is {row.get(name)!r}, expected a name or number")
    if row["status"] not in (FINISHED, DIVERGED):
        raise ValueError(
            f"status is {row['status']!r}, expected {FINISHED!r} or {DIVERGED!r}"
        )
    for name in ("top1_last", "top1_best"):
        value = row.get(name)
        if row["status"] == FINISHED and not _is_percentage(value):
            raise ValueError(f"{name} is {value!r}, expected a percentage")
    return row


def _is_percentage(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and 0 <= value <= 100


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """How a run went; accuracies in percent.

    Attributes:
      train: (epochs, 2) float: epochs trained, top-1 on the views trained on.
      test: (evaluations, 2) float: epochs trained, top-1 on the test split.
      gradient: (epochs, 2) float: epochs trained, mean norm of the gradients of the
        last of them. Empty where none were recorded.
    """

    train: np.ndarray
    test: np.ndarray
    gradient: np.ndarray


def run_key(row: Mapping[str, Any]) -> RunKey:
    """What a run is known by: its name, and the work directory it is of."""
    return row["workdir"], row["run_id"]


def read_curves(rows: Iterable[Mapping[str, Any]]) -> dict[RunKey, Curve]:
    """Reads the metrics of those runs that have some."""
    curves = {run_key(row): read_curve(*run_key(row)) for row in rows}
    return {key: curve for key, curve in curves.items() if curve is not None}


def read_curve(workdir: pathlib.Path, run_id: str) -> Curve | None:
    """Reads the metrics of a run; None where there are none."""
    path = workdir / "runs" / run_id / METRICS_FILE
    if not path.is_file():
        return None
    train, test, gradient = [], [], []
    for line in path.read_text(errors="replace").splitlines():
        try:
            metrics = json.loads(line)
            trained = metrics["epoch"] + 1
            train.append((trained, 100 * metrics["top1"]))
        except (ValueError, KeyError, TypeError):  # a line that is half written
            continue
        if "test_top1" in metrics:
            test.append((trained, metrics["test_top1"]))
        norm = metrics.get("gradient_norm")
        if isinstance(norm, float) and math.isfinite(norm):
            gradient.append((trained, norm))
    if not train:
        return None
    arrays = (np.asarray(c, float).reshape(-1, 2) for c in (train, test, gradient))
    return Curve(*arrays)
