"""The results file, one JSON object a line, and the table that ends a job."""

import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gift_jax.runtime import hosts

RESULTS_FILE = "results.jsonl"
# Which learning rates were chosen, one setup a line; see gift_jax/tuning.py.
TUNING_FILE = "tuning.jsonl"
# Fields that say what a run was; rows that agree in all of them differ in nothing but
# the seed.
SETUP = ("optimizer", "learning_rate", "weight_decay", "schedule")
BLOCK = (
    "dataset",
    "distill",
    "ipc",
    "teacher",
    "soft_labels",
    "label_format",
    "views",
    "augment",
    "student",
    "epochs",
    "batch_size",
)
SETTINGS = (*BLOCK, *SETUP, "loss")
# What a learning rate is chosen for.
TUNING_SETTINGS = tuple(name for name in SETTINGS if name != "learning_rate")
_COLUMNS = {
    "distill": "distilled",
    "ipc": "ipc",
    "teacher": "teacher",
    "views": "views",
    "label_format": "labels",
    "student": "student",
    "loss": "loss",
    "optimizer": "optimizer",
    "learning_rate": "rate",
    "epochs": "epochs",
    "seed": "seed",
    "top1_last": "top-1 last",
    "top1_best": "top-1 best",
    "top5_last": "top-5 last",
    "train_seconds": "seconds",
    "status": "status",
}
# Shown where they tell rows apart.
_IF_SEVERAL = {"teacher", "views", "label_format", "learning_rate", "epochs"}

Row = Mapping[str, Any]


def append_result(workdir: pathlib.Path, row: Row) -> None:
    """Appends a finished run to the results, unless its row is there already.

    Raises:
      OSError: the line could not be written in full.
    """
    if json.loads(json.dumps(row)) not in read_results(workdir):
        _append_line(workdir / RESULTS_FILE, row)


def append_tuning(workdir: pathlib.Path, row: Row) -> None:
    """Appends a chosen learning rate, unless its row is there already.

    Raises:
      OSError: the line could not be written in full.
    """
    path = workdir / TUNING_FILE
    lines = path.read_text().splitlines() if path.exists() else []
    if json.dumps(row) not in lines:
        _append_line(path, row)


def _append_line(path: pathlib.Path, row: Row) -> None:
    """Appends a line in one system call.

    Processes that share a work directory therefore do not mix their lines.
    """
    if not hosts.is_primary():
        return
    line = json.dumps(row) + "\n"
    # The last line of a writer that was killed may be half there.
    if path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n"):
        line = "\n" + line
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        written = os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
    if written < len(line):
        raise OSError(f"cannot write all of a line to {path}: is the disk full?")


def read_results(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """All runs of a work directory, one row each; half-written lines are passed over.

    Of a run that was deleted and made anew, the latest row counts.
    """
    path = workdir / RESULTS_FILE
    return latest_rows(path.read_text(), json.loads)[0] if path.exists() else []


def latest_rows(
    text: str, parse: Callable[[str], dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[str]]:
    """The latest row of every run in a results file.

    Args:
      text: Of the file.
      parse: From a line to its row; raises ValueError where it is none.

    Returns:
      The rows, and what is wrong with the lines that were passed over.
    """
    rows: dict[str, dict[str, Any]] = {}
    unreadable = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = parse(line)
        except ValueError as error:
            unreadable.append(f"line {number}: {error}")
            continue
        rows[row["run_id"]] = row
    return list(rows.values()), unreadable


def parse_object(line: str) -> dict[str, Any]:
    """Parses a line that holds a JSON object.

    Raises:
      ValueError: it does not; the message says why.
    """
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg})") from None
    if not isinstance(found, dict):
        raise ValueError(f"a JSON {type(found).__name__}, expected an object")
    return found


def summary_table(rows: Sequence[Row]) -> str:
    """A Markdown table of runs; accuracies in percent."""
    shown = [
        name
        for name in _COLUMNS
        if name not in _IF_SEVERAL or len({row.get(name) for row in rows}) > 1
    ]
    cells = [[_COLUMNS[name] for name in shown]]
    cells += [[_format(name, row.get(name)) for name in shown] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(shown))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _format(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name == "learning_rate":
        return f"{value:g}"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
