"""Builds the report of work directories and writes it."""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from gift_jax import registry
from gift_jax.pipeline.results import BENCHMARK, Row
from gift_jax.report import (
    changes,
    continual,
    examples,
    figures,
    groups,
    markup,
    matrix,
    measurements,
    page,
    plots,
    reading,
    regret,
    scores,
    tables,
)
from gift_jax.runtime import atomic
from gift_jax.runtime.errors import InputError

# The default is the first of them that was run.
_DEFAULT_BASELINES = ("kl", "kl-t_squared=True")
# Names the files of the last report in a directory: nothing else is deleted there.
MANIFEST = ".report.json"
_FILE_OF_A_REPORT = re.compile(r"[^/]+\.(md|html|csv|tex|png)")


class Scored(NamedTuple):
    """Asks for scores.

    Attributes:
      real_accuracy: Accuracy of the whole real train split in percent, see
        `scores.score`.
    """

    real_accuracy: float | None = None


def write_report(
    workdirs: Sequence[pathlib.Path],
    out: pathlib.Path,
    baseline: str | None = None,
    against: pathlib.Path | None = None,
    scored: Scored | None = None,
) -> list[pathlib.Path]:
    """Writes the report of work directories.

    Args:
      workdirs: Directories that hold results.jsonl, and what it is about.
      out: Directory of the report; created if absent. Files of an earlier report
        there are replaced or deleted, others are left alone.
      baseline: See `make_report`.
      against: See `make_report`.
      scored: See `make_report`.

    Returns:
      The files.

    Raises:
      FileNotFoundError: there is no results file.
      InputError: see `make_report`; or the directory of the report is a link, or it
        cannot be written.
    """
    if out.is_symlink():
        raise InputError(f"{out} is a link: give --out={out.resolve()} to write there")
    files = _files(make_report(workdirs, baseline, against, scored))
    try:
        return _write(out, files)
    except OSError as error:
        raise InputError(
            f"the report cannot be written ({error}): give --out=DIR to write elsewhere"
        ) from error


def make_report(
    workdirs: Sequence[pathlib.Path],
    baseline: str | None = None,
    against: pathlib.Path | None = None,
    scored: Scored | None = None,
) -> page.Report:
    """The report of work directories, with nothing written.

    Args:
      workdirs: Directories that hold results.jsonl, and what it is about.
      baseline: Label of the loss to compare with; by default kl, or else kl x T^2,
        where it was run.
      against: An earlier work directory: a first table says what changed since.
      scored: Adds a table of DD-Ranking's scores, see `scores`.

    Raises:
      FileNotFoundError: there is no results file.
      InputError: it cannot be read, the baseline is not in it, or no images of it can
        be scored.
    """
    rows, choices, unreadable = reading.read_results(workdirs)
    incremental = continual.curves(rows)
    others = _but_continual(rows)
    grouped = groups.group_rows(others)
    labels = list(dict.fromkeys(row["loss"] for row in rows))
    if baseline is None:
        baseline = next((b for b in _DEFAULT_BASELINES if b in labels), None)
    if baseline is not None and baseline not in labels:
        raise registry.unknown_name("baseline", baseline, labels)
    # The baseline first, the others as they first appear.
    losses = sorted(labels, key=lambda loss: loss != baseline)
    compared = groups.compare(grouped, baseline, choices)
    curves = reading.read_curves(others)
    images, without_images = examples.read_all_examples(others)
    all_tables = [
        _changes(grouped, workdirs, against) if against else None,
        *(continual.tables(incremental) if incremental else ()),
        *(_tables(compared, losses, choices, curves) if others else ()),
        scores.scores_table(compared, scored.real_accuracy) if scored else None,
    ]
    settings = (
        page.common_settings(compared)
        if others
        else continual.common_settings(incremental)
    )
    all_figures = list(figures.make_figures(compared, losses, choices, curves, images))
    if incremental:
        all_figures.insert(0, figures.over_steps(incremental))
    return page.Report(
        heading=f"Results of {', '.join(workdir.name for workdir in workdirs)}",
        rows=rows,
        settings={**settings, **page.made_by(rows)},
        groups=compared,
        choices=choices,
        unreadable=[*unreadable, *without_images],
        tables=[table for table in all_tables if table is not None],
        figures=all_figures,
    )


def _but_continual(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if not continual.is_continual(row)]


def _changes(
    grouped: Sequence[groups.Group], workdirs: Sequence[pathlib.Path], old: pathlib.Path
) -> markup.Table:
    names = ", ".join(workdir.name for workdir in workdirs), old.name
    if names[0] == names[1]:
        names = ", ".join(map(str, workdirs)), str(old)
    rows, _, _ = reading.read_results([old])
    before = groups.group_rows(_but_continual(rows))
    return changes.changes_table(grouped, before, names=names)


def _tables(
    compared: Sequence[groups.Group],
    losses: Sequence[str],
    choices: Sequence[Row],
    curves: Mapping[reading.RunKey, reading.Curve],
) -> list[markup.Table | None]:
    """The tables of runs that are compared with one another."""
    return [
        tables.accuracy_table(compared, losses),
        regret.table(compared),
        matrix.table(matrix.matrices(compared)),
        tables.tuning_table(compared, losses),
        tables.comparison_table(compared, losses),
        tables.t_squared_table(compared, choices),
        tables.gradient_table(compared, losses, curves),
        measurements.correlations(compared),
        measurements.table(compared, losses),
    ]


def plot(*workdirs: str | pathlib.Path) -> Figure:
    """The accuracies in work directories by loss and optimizer, for a notebook.

    Raises:
      FileNotFoundError, InputError: see `write_report`; also where there is no
        benchmark, or several, in which losses can be compared.

    >>> plot("workdir/cifar10").savefig("accuracy.pdf")  # doctest: +SKIP
    """
    rows, choices, _ = reading.read_results([pathlib.Path(w) for w in workdirs])
    grouped = groups.group_rows(_but_continual(rows))
    benchmarks = {group.of(BENCHMARK) for group in grouped}
    if len(benchmarks) != 1:
        raise InputError(
            f"plot draws one benchmark, and there are {len(benchmarks)}: see "
            "gift_jax.show_report"
        )
    losses = list(dict.fromkeys(group.loss for group in grouped))
    return plots.bars(groups.compare(grouped, None, choices), losses)


def _files(report: page.Report) -> dict[str, bytes]:
    texts = {
        "report.md": page.to_markdown(report),
        "report.html": page.to_html(report),
    }
    if report.groups:
        summary = tables.summary_rows(report.groups)
        lines = [list(summary[0]), *(list(row.values()) for row in summary)]
        texts["summary.csv"] = markup.to_csv(lines)
    for table in report.tables:
        cells = [[cell.text for cell in row] for row in table.cells]
        texts[f"{table.name}.csv"] = markup.to_csv([table.header, *cells])
        texts[f"{table.name}.tex"] = markup.to_latex(table)
    for figure in report.figures:
        texts[f"{figure.name}.png.csv"] = markup.to_csv(figure.data)
    files = {name: text.encode() for name, text in texts.items()}
    return files | {f"{figure.name}.png": figure.png for figure in report.figures}


def _write(out: pathlib.Path, files: Mapping[str, bytes]) -> list[pathlib.Path]:
    """Writes files, each whole or not at all, and deletes those of an old report."""
    out.mkdir(parents=True, exist_ok=True)
    old = _old_files(out)
    # A report that is interrupted here is cleared away by the next.
    _replace(out / MANIFEST, json.dumps(sorted({*old, *files})).encode())
    written = [_replace(out / name, content) for name, content in files.items()]
    for name in old - files.keys():
        (out / name).unlink(missing_ok=True)
    _replace(out / MANIFEST, json.dumps(sorted(files)).encode())
    return written


def _old_files(out: pathlib.Path) -> set[str]:
    """Files of the directory itself that a report may consist of, and did."""
    try:
        names = json.loads((out / MANIFEST).read_bytes())
        here = {path.name for path in out.iterdir() if path.is_file()}
        return {n for n in here & set(names) if _FILE_OF_A_REPORT.fullmatch(n)}
    except (FileNotFoundError, ValueError, TypeError, RecursionError):
        return set()


def _replace(path: pathlib.Path, content: bytes) -> pathlib.Path:
    with atomic.replacing(path) as unfinished:
        unfinished.unlink(missing_ok=True)
        with unfinished.open("xb") as file:  # never through a link
            file.write(content)
    return path
