"""Builds the report of work directories and writes it."""

import io
import json
import pathlib
from collections.abc import Sequence

import matplotlib.figure

from gift_jax import registry
from gift_jax.report import (
    comparison,
    figures,
    gradients,
    markup,
    page,
    reading,
    statistics,
    style,
    tables,
)
from gift_jax.report.statistics import Group
from gift_jax.runtime import atomic

_DEFAULT_BASELINE = "kl"
# What the last report in a directory consisted of: nothing else is deleted there.
MANIFEST = ".report.json"


def write_report(
    workdirs: Sequence[pathlib.Path], out: pathlib.Path, baseline: str | None = None
) -> list[pathlib.Path]:
    """Writes the report of work directories.

    Args:
      workdirs: Where results.jsonl lie, and what they are about.
      out: Directory of the report; created if absent. Files of an earlier report
        there are replaced or deleted, others are left alone.
      baseline: Label of the loss to compare with; by default kl, where it was run.

    Returns:
      The files.

    Raises:
      FileNotFoundError: there is no results file.
      ValueError: it cannot be read, or the baseline is not in it.
    """
    results = reading.read_results(workdirs)
    groups = statistics.group_rows(results.rows)
    baseline = _baseline(groups, baseline)
    losses = _ordered_losses(groups, baseline)
    comparisons = comparison.compare(groups, baseline, results.tunings)
    curves = reading.read_curves(results.rows)
    shown_tables = [
        tables.accuracy_table(comparisons, losses),
        tables.tuning_table(comparisons, losses),
        tables.comparison_table(comparisons, losses),
        gradients.t_squared_table(groups, results.tunings),
        gradients.gradient_table(comparisons, losses, curves),
    ]
    report = page.Report(
        title=f"Results of {', '.join(workdir.name for workdir in workdirs)}",
        comparisons=comparisons,
        tunings=results.tunings,
        unreadable=results.unreadable,
        tables=[table for table in shown_tables if table is not None],
        pictures=[
            page.Picture(name, title, caption, _png(drawing))
            for name, title, caption, drawing in figures.make_figures(
                comparisons, losses, results.tunings, curves
            )
        ],
    )
    return _write(out, _files(report))


def _baseline(groups: Sequence[Group], wanted: str | None) -> str | None:
    losses = list(dict.fromkeys(group.loss for group in groups))
    if wanted is None:
        return _DEFAULT_BASELINE if _DEFAULT_BASELINE in losses else None
    if wanted not in losses:
        raise registry.unknown_name("baseline", wanted, losses)
    return wanted


def _ordered_losses(groups: Sequence[Group], baseline: str | None) -> list[str]:
    """The baseline first, the others as they first appear."""
    losses = dict.fromkeys(group.loss for group in groups)
    return sorted(losses, key=lambda loss: loss != baseline)


def _png(figure: matplotlib.figure.Figure) -> bytes:
    stream = io.BytesIO()
    # Without the version of matplotlib the same results give the same bytes.
    figure.savefig(stream, format="png", dpi=style.DPI, metadata={"Software": None})
    return stream.getvalue()


def _files(report: page.Report) -> dict[str, str | bytes]:
    files: dict[str, str | bytes] = {
        "report.md": page.to_markdown(report),
        "report.html": page.to_html(report),
        "summary.csv": markup.to_csv(*tables.summary_columns(report.comparisons)),
    }
    for table in report.tables:
        texts = [[cell.text for cell in row] for row in table.rows]
        files[f"{table.name}.csv"] = markup.to_csv(table.header, texts)
        files[f"{table.name}.tex"] = markup.to_latex(table)
    return files | {f"{picture.name}.png": picture.png for picture in report.pictures}


def _write(out: pathlib.Path, files: dict[str, str | bytes]) -> list[pathlib.Path]:
    """Writes files, each whole or not at all, and deletes those of an old report."""
    out.mkdir(parents=True, exist_ok=True)
    old = _old_files(out)
    # A report that is interrupted here is cleared away by the next.
    _replace(out / MANIFEST, json.dumps(sorted({*old, *files})))
    written = [_replace(out / name, content) for name, content in files.items()]
    for name in old - files.keys():
        (out / name).unlink(missing_ok=True)
    _replace(out / MANIFEST, json.dumps(sorted(files)))
    return written


def _old_files(out: pathlib.Path) -> set[str]:
    try:
        names = json.loads((out / MANIFEST).read_text())
    except (FileNotFoundError, ValueError):
        return set()
    # Nothing but files of the directory itself, whatever the list says.
    return {path.name for path in out.iterdir() if path.is_file()} & set(names)


def _replace(path: pathlib.Path, content: str | bytes) -> pathlib.Path:
    data = content.encode() if isinstance(content, str) else content
    with atomic.replacing(path) as unfinished:
        unfinished.write_bytes(data)
    return path
