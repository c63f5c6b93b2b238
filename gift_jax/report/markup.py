"""Tables as Markdown, LaTeX (booktabs), CSV and HTML."""

import csv
import dataclasses
import html
import io
from collections.abc import Sequence
from typing import Any

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "²": r"$^2$",
    "\N{MINUS SIGN}": r"$-$",
    "\N{EN DASH}": "--",
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
      text: As it is read.
      verdict: 1 for bold, -1 for italic, 0 for neither.
    """

    text: str
    verdict: int = 0


@dataclasses.dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
      name: Of its files.
      title: One line.
      caption: What is in the cells.
      header: One text a column.
      rows: Cells, one a column.
      text_columns: How many columns from the left are aligned to the left.
    """

    name: str
    title: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    text_columns: int


def to_markdown(table: Table) -> str:
    """A table of GitHub's Markdown."""
    cells = [[escape_markdown(text) for text in table.header]]
    cells += [[_markdown(cell) for cell in row] for row in table.rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    rule = [
        "-" * (width + 2) if i < table.text_columns else "-" * (width + 1) + ":"
        for i, width in enumerate(widths)
    ]
    return "\n".join([lines[0], "|" + "|".join(rule) + "|", *lines[1:]])


def _markdown(cell: Cell) -> str:
    mark = {1: "**", -1: "*", 0: ""}[cell.verdict]
    return mark + escape_markdown(cell.text) + mark


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, in a table too.

    Underscores inside of words need no escape.
    """
    for sign in "\\`*|<":
        text = text.replace(sign, "\\" + sign)
    return text


def to_latex(table: Table) -> str:
    """A table environment for the package booktabs."""
    alignment = "l" * table.text_columns + "r" * (
        len(table.header) - table.text_columns
    )
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(table.caption)}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        " & ".join(escape_latex(text) for text in table.header) + r" \\",
        r"\midrule",
        *(" & ".join(_latex(cell) for cell in row) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex(cell: Cell) -> str:
    text = escape_latex(cell.text)
    # A row must not begin with what could be an option of the `\\` before it.
    text = f"{{{text}}}" if text.startswith("[") else text
    return {1: rf"\textbf{{{text}}}", -1: rf"\textit{{{text}}}", 0: text}[cell.verdict]


def escape_latex(text: str) -> str:
    """Text that LaTeX sets as it is.

    >>> print(escape_latex("kl-t_squared=True"))
    kl-t\\_squared=True
    """
    return "".join(_LATEX.get(sign, sign) for sign in text)


def to_csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Comma-separated values; None is empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue()


def to_html(table: Table) -> str:
    """A table element."""
    head = "".join(
        f'<th scope="col"{_html_class(table, column)}>{html.escape(text)}</th>'
        for column, text in enumerate(table.header)
    )
    body = "".join(f"<tr>{_html_row(table, row)}</tr>\n" for row in table.rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"


def _html_row(table: Table, row: Sequence[Cell]) -> str:
    tags = {1: ("<b>", "</b>"), -1: ("<i>", "</i>"), 0: ("", "")}
    cells = []
    for column, cell in enumerate(row):
        kind = _html_class(table, column)
        before, after = tags[cell.verdict]
        cells.append(f"<td{kind}>{before}{html.escape(cell.text)}{after}</td>")
    return "".join(cells)


def _html_class(table: Table, column: int) -> str:
    return "" if column < table.text_columns else ' class="number"'
