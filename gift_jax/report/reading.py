"""Reads the runs of work directories: their results and their metrics."""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from gift_jax.pipeline import results
from gift_jax.pipeline.results import Row
from gift_jax.runtime.errors import InputError
from gift_jax.runtime.progress import METRICS_FILE

RunKey = tuple[pathlib.Path, str]

# Prefix of what was evaluated on the test split.
_TEST = "test_"
_ACCURACIES = ("test_top1", "test_top5")


def read_results(
    workdirs: Sequence[pathlib.Path],
) -> tuple[list[Row], list[Row], list[str]]:
    """Reads the results and the tuned learning rates of work directories.

    Returns:
      Rows, one per run, in which "workdir" is the directory of the run; the latest
      choice of a learning rate for each combination of settings; and what was passed
      over, and why.
      A loss of the user's own that was edited in between has its code in its name.

    Raises:
      FileNotFoundError: one of them has no results.
      InputError: one of them has no row that can be read.
    """
    rows: list[Row] = []
    choices: dict[tuple, Row] = {}
    unreadable: list[str] = []
    for workdir in workdirs:
        path = workdir / results.RESULTS_FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist: give a work directory in which "
                "`python -m gift_jax.main` has finished a run"
            )
        of_workdir, bad_rows = results.latest_rows(workdir)
        if not of_workdir:
            only = f"only lines that cannot be read ({bad_rows[0]})" if bad_rows else ""
            raise InputError(
                f"{path} holds {only or 'no line'}, expected one JSON object a run: "
                "run `python -m gift_jax.main` again to have finished runs added"
            )
        rows += [{**row, "workdir": workdir} for row in of_workdir]
        chosen, bad_choices = results.latest_choices(workdir)
        choices |= {tuple(c[n] for n in results.TUNING_SETTINGS): c for c in chosen}
        prefix = f"{workdir.name}/" if len(workdirs) > 1 else ""
        unreadable += [f"{prefix}{results.RESULTS_FILE} {why}" for why in bad_rows]
        unreadable += [f"{prefix}{results.TUNING_FILE} {why}" for why in bad_choices]
    codes = collections.defaultdict(set)
    for row in rows:
        codes[row["loss"]].add(row["loss_code"])
    edited = {loss for loss, versions in codes.items() if len(versions) > 1}
    told = [_with_code(r) if r["loss"] in edited else r for r in rows]
    tuned = [_with_code(c) if c["loss"] in edited else c for c in choices.values()]
    return told, tuned, unreadable


def _with_code(row: Row) -> Row:
    return {**row, "loss": f"{row['loss']} (code {row['loss_code']})"}


def inside(workdir: pathlib.Path, *parts: str) -> pathlib.Path:
    """A place in a work directory.

    Raises:
      InputError: a name or a link in it leads out of the work directory.
    """
    path = workdir.joinpath(*parts)
    if not path.resolve().is_relative_to(workdir.resolve()):
        raise InputError(f"{path} lies outside of the work directory")
    return path


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """How a run went; accuracies in percent.

    Attributes:
      train: (epochs, 2) float: epochs trained, top-1 on the views trained on.
      test: (evaluations, 2) float: epochs trained, top-1 on the test split.
      gradient: (epochs, 2) float: epochs trained, mean norm of the gradients of the
        last of them. Empty where none were recorded.
      measured: Other evaluations by name, (evaluations, 2) float.
    """

    train: np.ndarray
    test: np.ndarray
    gradient: np.ndarray
    measured: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def run_key(row: Row) -> RunKey:
    """What identifies a run: its work directory and its name in it."""
    return row["workdir"], row["run_id"]


def read_curves(rows: Iterable[Row]) -> dict[RunKey, Curve]:
    """Reads the metrics of those runs that have some."""
    curves = {run_key(row): read_curve(*run_key(row)) for row in rows}
    return {key: curve for key, curve in curves.items() if curve is not None}


def read_curve(workdir: pathlib.Path, run_id: str) -> Curve | None:
    """Reads the metrics of a run; None where there are none in the work directory.

    Lines that make no sense, such as a half-written one, are passed over.
    """
    try:
        path = inside(workdir, "runs", run_id, METRICS_FILE)
    except InputError:
        return None
    fields = ("top1", "test_top1", "gradient_norm")
    points: list[list[tuple[float, float]]] = [[], [], []]
    measured = collections.defaultdict(list)
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            metrics = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(metrics, dict) or not results.is_number(metrics.get("epoch")):
            continue
        for name, found in zip(fields, points, strict=True):
            if results.is_number(metrics.get(name)):
                found.append((metrics["epoch"] + 1, metrics[name]))
        for name in metrics:
            is_other = name.startswith(_TEST) and name not in _ACCURACIES
            if is_other and results.is_number(metrics[name]):
                point = (metrics["epoch"] + 1, metrics[name])
                measured[name.removeprefix(_TEST)].append(point)
    train, test, gradient = (np.array(p, float).reshape(-1, 2) for p in points)
    others = {name: np.array(p, float) for name, p in measured.items()}
    return Curve(train * [1, 100], test, gradient, others) if len(train) else None
