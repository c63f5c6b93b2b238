"""The rows of results: their fields, and the files that hold them.

A file holds one JSON object per line. Rows are checked here, and only here, when they
are written and when they are read; a line that is no valid row is skipped and reported.
"""

import contextlib
import fcntl
import functools
import json
import logging
import math
import os
import pathlib
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gift_jax.runtime import checksums, hosts

_log = logging.getLogger(__name__)

RESULTS_FILE = "results.jsonl"
# The learning rates that were chosen, one choice per line.
TUNING_FILE = "tuning.jsonl"
FINISHED, DIVERGED = "finished", "diverged"

# Fingerprints of content: of all that a student was trained on, of the real images with
# the test split, of the weights that training began with, and of user code of a network
# or optimizer.
IDENTITY = ("trained_on", "dataset_fingerprint", "init_from", "code")
# Values in rows that were written before the fields existed.
_DEFAULTS = {"code": None, "loss_code": None}
# Settings that losses are compared under, whatever the optimizer.
BENCHMARK = (
    "dataset", "distill", "ipc", "teacher", "soft_labels", "label_format", "views",
    "augment", "student", "epochs", "batch_size", "eval_every", *IDENTITY,
)  # fmt: skip
OPTIMIZER = ("optimizer", "learning_rate", "weight_decay", "schedule")
# Runs that agree in all of them are one group: they differ in nothing but the seed.
SETTINGS = (*BENCHMARK, *OPTIMIZER, "loss_code", "loss")
# Settings that a learning rate is chosen for.
TUNING_SETTINGS = tuple(name for name in SETTINGS if name != "learning_rate")

# Fields of rows of class-incremental training.
CONTINUAL = (
    "continual_teacher", "continual_order", "continual_steps", "continual_step"
)  # fmt: skip

_IN_EVERY_ROW = (
    "run_id", *SETTINGS, "seed", "data_seed", "status", "top1_last", "top1_best"
)  # fmt: skip
_IN_EVERY_CHOICE = (
    *TUNING_SETTINGS, "learning_rate", "default_learning_rate", "validation_images",
    "seeds", "tried",
)  # fmt: skip
_MOST_CHARACTERS, _MOST_ITEMS = 1000, 1000

Row = Mapping[str, Any]


def append_result(workdir: pathlib.Path, row: Row) -> None:
    """Appends a finished run to the results, unless its row is there already.

    Raises:
      OSError: the line could not be written in full.
      ValueError: the row is not valid; see `check_row`.
    """
    row = _as_read(row)
    check_row(row)
    if row not in latest_rows(workdir, of=row["run_id"])[0]:
        _append_line(workdir / RESULTS_FILE, row)


def append_tuning(workdir: pathlib.Path, row: Row) -> None:
    """Appends a chosen learning rate, unless it is the latest choice already.

    Raises:
      OSError: the line could not be written in full.
      ValueError: the row is not valid; see `check_choice`.
    """
    row = _as_read(row)
    check_choice(row)
    if row not in latest_choices(workdir)[0]:
        _append_line(workdir / TUNING_FILE, row)


def _as_read(row: Row) -> dict[str, Any]:
    """A row as read back: null for numbers that are not finite, as JSON has none."""
    found = json.loads(json.dumps(row), parse_constant=lambda _: None)
    return _with_defaults(found)


def _with_defaults(row: Row) -> dict[str, Any]:
    missing = {name: _DEFAULTS[name] for name in _DEFAULTS if name not in row}
    return {**row, **missing}


def _append_line(path: pathlib.Path, row: Row) -> None:
    """Appends a line in one system call, and under a lock.

    Processes that share a work directory therefore do not mix their lines; over NFS
    they would without the lock (open(2), O_APPEND).
    """
    if not hosts.is_primary():
        return
    line = json.dumps(checksums.with_checksum(row)) + "\n"
    with path.open("ab", buffering=0) as file:
        with contextlib.suppress(OSError):  # the file system has no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        # A writer that was killed may have left half a line.
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            line = "\n" + line
        written = os.write(file.fileno(), line.encode())
    if written < len(line):
        raise OSError(f"cannot write all of a line to {path}: is the disk full?")


def read_results(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """All runs of a work directory, one row each.

    For a run that was deleted and made anew, the latest row counts.
    """
    rows, skipped = latest_rows(workdir)
    for reason in skipped:
        _warn_once(f"{workdir / RESULTS_FILE}: passed over {reason}")
    return rows


@functools.cache
def _warn_once(message: str) -> None:
    _log.warning(message)


def latest_rows(
    workdir: pathlib.Path, of: str = ""
) -> tuple[list[dict[str, Any]], list[str]]:
    """The latest row of every run, and why lines were skipped.

    Args:
      workdir: Work directory whose results are read.
      of: ID of a run; lines that do not name it are skipped unparsed, to save time.
    """
    rows, skipped = _read_lines(workdir / RESULTS_FILE, check_row, of)
    return list({row["run_id"]: row for row in rows}.values()), skipped


def latest_choices(workdir: pathlib.Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The latest choice for the same settings, and why lines were skipped."""
    rows, skipped = _read_lines(workdir / TUNING_FILE, check_choice)
    latest = {tuple(row[name] for name in TUNING_SETTINGS): row for row in rows}
    return list(latest.values()), skipped


def _read_lines(
    path: pathlib.Path, check: Callable[[Any], None], naming: str = ""
) -> tuple[list[dict[str, Any]], list[str]]:
    rows: list[dict[str, Any]] = []
    wrong: dict[str, list[int]] = {}
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    named = json.dumps(naming).encode() if naming else b""
    for number, line in enumerate(lines, start=1):
        if (not line and number == len(lines)) or named not in line:
            continue
        try:
            row = checksums.without_checksum(json.loads(line.decode()))
            if isinstance(row, dict):
                row = _with_defaults(row)
            check(row)
        except UnicodeDecodeError:
            wrong.setdefault("not UTF-8", []).append(number)
        except json.JSONDecodeError as error:
            wrong.setdefault(f"not JSON ({error.msg})", []).append(number)
        except (ValueError, RecursionError) as error:
            wrong.setdefault(str(error), []).append(number)
        else:
            rows.append(row)
    return rows, [f"{_numbers(n)}: {reason}" for reason, n in wrong.items()]


def _numbers(lines: Sequence[int]) -> str:
    shown = ", ".join(map(str, lines[:5]))
    more = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
    return f"line{'s' * (len(lines) > 1)} {shown}{more}"


def check_row(row: Any) -> None:
    """Checks a row of the results file.

    Unknown fields may hold a number, a text, true, false or null.

    Raises:
      ValueError: it is not valid; the message says why.
    """
    if isinstance(row, dict) and "run_id" in row and "trained_on" not in row:
        raise ValueError(
            "a row of version 1, which does not say what the student was trained on; "
            "expected version 2"
        )
    _check_object(row, _IN_EVERY_ROW)
    for name in ("top1_last", "top1_best"):
        if row["status"] == FINISHED and row[name] is None:
            raise ValueError(f"{name} is None, expected a percentage")


def check_choice(row: Any) -> None:
    """Checks a row of the file of chosen learning rates.

    Raises:
      ValueError: it is not valid; the message says why.
    """
    # No rate is chosen where all of them diverged.
    chosen = isinstance(row, dict) and row.get("learning_rate", "absent") is None
    _check_object({**row, "learning_rate": 1} if chosen else row, _IN_EVERY_CHOICE)


def _check_object(row: Any, required: Sequence[str]) -> None:
    if not isinstance(row, dict):
        raise ValueError(f"a JSON {type(row).__name__}, expected an object")
    for name in required:
        if name not in row:
            raise ValueError(f"without {name}, expected {_KIND_OF[name].rstrip('?')}")
    for name, value in row.items():
        kind = _KIND_OF.get(name, _ANYTHING)
        if value is None and kind.endswith("?"):
            continue
        kind = kind.rstrip("?")
        if not _KINDS[kind][0](value):
            shown = reprlib.repr(name)[1:-1]
            raise ValueError(f"{shown} is {reprlib.repr(value)}, expected {kind}")


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, and not a bool."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and is_number(value)


def _is_percentage(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 100


def _is_rate(value: Any) -> bool:
    return is_number(value) and value >= 0


def _is_text(value: Any) -> bool:
    """Whether a value is a short text of printable characters, without line ends."""
    is_short = isinstance(value, str) and len(value) <= _MOST_CHARACTERS
    return is_short and value.isprintable()


def _is_file_name(value: Any) -> bool:
    """Whether a value is the name of a file, without a directory."""
    if not _is_text(value) or value in ("", ".", ".."):
        return False
    return len(value.encode()) <= 255 and not set(value) & {"/", "\\"}


def _is_fingerprint(value: Any) -> bool:
    return _is_text(value) and value.isalnum() and value.isascii()


def _is_scalar(value: Any) -> bool:
    return isinstance(value, bool | None) or is_number(value) or _is_text(value)


def _is_trial(value: Any) -> bool:
    """Whether a value has a learning rate, and a mean top-1 or null for divergence."""
    if not isinstance(value, dict) or not _is_rate(value.get("learning_rate")):
        return False
    top1 = value.get("top1", "absent")
    return top1 is None or _is_percentage(top1)


def _are(is_item: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """A check that a value is a list of such items, and not empty or too long."""
    return lambda value: (
        isinstance(value, list)
        and 0 < len(value) <= _MOST_ITEMS
        and all(map(is_item, value))
    )


_ANYTHING = "a text, a number, true, false or null"
# Kinds of values: how they are checked, and their fields; "?" where null is allowed.
_KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "the name of a file": (_is_file_name, "run_id distilled_dir? soft_labels_dir?"),
    "a text": (
        _is_text,
        "dataset distill teacher? soft_labels label_format? augment? student optimizer "
        "schedule? loss protocol? protocol_changes? continual_teacher",
    ),
    "a fingerprint": (
        _is_fingerprint,
        "trained_on dataset_fingerprint init_from? code? loss_code? "
        "distilled_fingerprint? teacher_fingerprint? continual_trained_on",
    ),
    "an integer": (
        _is_integer,
        "ipc views epochs batch_size eval_every seed data_seed soft_label_bytes? "
        "diverged_epoch? diverged_step? validation_images continual_order "
        "continual_steps continual_step",
    ),
    "a number": (is_number, "weight_decay? gradient_norm_first? train_seconds?"),
    "a number of at least 0": (_is_rate, "learning_rate default_learning_rate"),
    "a percentage": (_is_percentage, "top1_last? top1_best? top5_last?"),
    f"{FINISHED} or {DIVERGED}": ((FINISHED, DIVERGED).__contains__, "status"),
    "a list of integers": (_are(_is_integer), "seeds"),
    "a list of objects with learning_rate and top1": (_are(_is_trial), "tried"),
    _ANYTHING: (_is_scalar, ""),
}
_KIND_OF = {
    name.rstrip("?"): kind + "?" * name.endswith("?")
    for kind, (_, names) in _KINDS.items()
    for name in names.split()
}
