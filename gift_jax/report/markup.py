"""Tables as Markdown, LaTeX (booktabs), CSV and HTML, in which names are only text."""

import csv
import html
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
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
# Signs of tables, code, emphasis, tags and mathematics; what opens an address; and
# what turns brackets into a link. Underscores inside of words need no escape.
_MARKDOWN = re.compile(
    r"[\\`*|<~$&]|:(?=//)|(?<=www)\.|@(?=\w)|\](?=[(\[:])|(?<!\w)_|_(?!\w)"
)


class Cell(NamedTuple):
    """A text, and the verdict: 1 for bold, -1 for italic, 0 for neither."""

    text: str
    verdict: int = 0


class Table(NamedTuple):
    """A table: columns of text, aligned to the left, and of numbers."""

    name: str
    heading: str
    caption: str
    text_header: Sequence[str]
    number_header: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]

    @property
    def header(self) -> list[str]:
        """Headings of all columns."""
        return [*self.text_header, *self.number_header]

    @property
    def cells(self) -> list[list[Cell]]:
        """Cells of the rows."""
        return [
            [cell if isinstance(cell, Cell) else Cell(cell) for cell in row]
            for row in self.rows
        ]


def markdown_table(cells: Sequence[Sequence[str]], *, text_columns: int) -> str:
    """A table of GitHub's Markdown that is aligned as text, too.

    Args:
      cells: Rows of texts, the first of them the head.
      text_columns: How many columns from the left are aligned to the left.
    """
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    head, *body = (
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    )
    signs = "-" * text_columns + ":" * (len(widths) - text_columns)
    rule = ["-" * (w + 1) + sign for w, sign in zip(widths, signs, strict=True)]
    return "\n".join([head, "|" + "|".join(rule) + "|", *body])


def to_markdown(table: Table) -> str:
    """A table of GitHub's Markdown."""
    marks = {1: "**", -1: "*", 0: ""}
    rows = [
        [marks[c.verdict] + escape_markdown(c.text) + marks[c.verdict] for c in row]
        for row in table.cells
    ]
    head = [escape_markdown(text) for text in table.header]
    return markdown_table([head, *rows], text_columns=len(table.text_header))


def escape_markdown(text: str) -> str:
    r"""Text that Markdown shows as it is, on one line and in a table too.

    >>> print(escape_markdown("kl-t_squared=True *[here](https://example.org)"))
    kl-t_squared=True \*[here\](https\://example.org)
    """
    return _MARKDOWN.sub(lambda sign: "\\" + sign[0], _one_line(text))


def to_latex(table: Table) -> str:
    """A table environment for the package booktabs."""
    alignment = "l" * len(table.text_header) + "r" * len(table.number_header)
    cells = [[Cell(text) for text in table.header], *table.cells]
    head, *body = (" & ".join(map(_latex, row)) + r" \\" for row in cells)
    lines = "\n".join(body)
    return rf"""% needs \usepackage{{booktabs}}
\begin{{table}}
\centering
\caption{{{escape_latex(table.caption)}}}
\label{{tab:{table.name}}}
\begin{{tabular}}{{{alignment}}}
\toprule
{head}
\midrule
{lines}
\bottomrule
\end{{tabular}}
\end{{table}}
"""


def _latex(cell: Cell) -> str:
    text = escape_latex(cell.text)
    # A row must not begin with what could be an option of the `\\` before it.
    text = f"{{{text}}}" if text.startswith(("[", "*")) else text
    return {1: rf"\textbf{{{text}}}", -1: rf"\textit{{{text}}}", 0: text}[cell.verdict]


def escape_latex(text: str) -> str:
    """Text that LaTeX sets as it is.

    >>> print(escape_latex("kl-t_squared=True"))
    kl-t\\_squared=True
    """
    return "".join(_LATEX.get(sign, sign) for sign in _one_line(text))


def to_csv(rows: Iterable[Sequence[Any]]) -> str:
    """Comma-separated values; None is empty, and no text is a formula."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([_plain(value) for value in row] for row in rows)
    return stream.getvalue()


def _plain(value: Any) -> Any:
    """A text that a spreadsheet would run stands behind a quotation mark."""
    if not isinstance(value, str):
        return value
    text = _one_line(value)
    is_number = re.fullmatch(r"[+-]\d+(\.\d+)?", text)
    return f"'{text}" if text.startswith(tuple("=+-@")) and not is_number else text


def _one_line(text: str) -> str:
    return text if text.isprintable() else " ".join(text.split())


def to_html(table: Table) -> str:
    """A table element."""

    def line(cells: Sequence[Cell], tag: str) -> str:
        kinds = [""] * len(table.text_header)
        kinds += [' class="number"'] * len(table.number_header)
        return "".join(
            f"<{tag}{kind}>{_html(cell)}</{tag[:2]}>"
            for cell, kind in zip(cells, kinds, strict=True)
        )

    head = line([Cell(text) for text in table.header], 'th scope="col"')
    body = "".join(f"<tr>{line(row, 'td')}</tr>\n" for row in table.cells)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"


def _html(cell: Cell) -> str:
    tag = {1: "b", -1: "i", 0: ""}[cell.verdict]
    text = html.escape(cell.text)
    return f"<{tag}>{text}</{tag}>" if tag else text
