"""Tests of `gift_jax.report.markup`: what is written parses back, and does nothing."""

import csv
import html.parser
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gift_jax.report import markup, tables
from gift_jax.report.markup import Table
from tests.report.rows import GIFT, KL, T_SQUARED, compared, rows, texts


def made(all_rows):
    all_groups = compared(all_rows)
    losses = list(dict.fromkeys(group.loss for group in all_groups))
    return [
        tables.accuracy_table(all_groups, losses),
        tables.comparison_table(all_groups, losses),
    ]


def table_of(grid):
    return Table("t", "", "", grid[0][:1], grid[0][1:], grid[1:])


def read_csv(text):
    return list(csv.reader(io.StringIO(text)))


def read_latex(text):
    """The cells of a tabular, without marks."""
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    body = body.replace(r"\toprule", "").replace(r"\midrule", "")
    lines = [line for line in body.split(r"\\" + "\n") if line.strip()]
    return [
        [_unescape(cell.strip()) for cell in re.split(r"(?<!\\)&", line)]
        for line in lines
    ]


def _unescape(cell):
    cell = re.sub(r"^\\text(bf|it)\{(.*)\}$", r"\2", cell)
    cell = re.sub(r"^\{([\[*].*)\}$", r"\1", cell)
    names = {
        r"$\pm$": "±", "$-$": "\N{MINUS SIGN}", "--": "\N{EN DASH}",
        r"\textbackslash{}": "\\", r"\textasciitilde{}": "~",
        r"\textasciicircum{}": "^", r"\textless{}": "<", r"\textgreater{}": ">",
        r"\textbar{}": "|",
    }  # fmt: skip
    signs = "|".join(map(re.escape, names)) + r"|\\([&%$#_{}])"
    return re.sub(signs, lambda m: m[1] or names[m[0]], cell)


class TableParser(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.rows, self.open = [], []

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def test_escaping_of_a_loss_with_hyperparameters():
    assert markup.escape_latex(T_SQUARED) == r"kl-t\_squared=True"
    accuracy, _ = made(rows("kl", KL) + rows(T_SQUARED, GIFT))
    assert r"kl-t\_squared=True" in markup.to_latex(accuracy)
    assert T_SQUARED in markup.to_markdown(accuracy)
    assert T_SQUARED in markup.to_html(accuracy)


def test_latex_loads_nothing_but_booktabs_and_is_balanced():
    for table in made(rows("kl", KL) + rows(T_SQUARED, GIFT)):
        latex = markup.to_latex(table)
        assert latex.count(r"\begin{") == latex.count(r"\end{") == 2
        assert latex.count("{") == latex.count("}")
        assert latex.isascii()


cell_text = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"]))
cell_text = cell_text.map(lambda t: " ".join(t.split())).filter(
    # Dashes that LaTeX would join are no text of ours.
    lambda t: "--" not in t
)


@given(st.lists(st.lists(cell_text, min_size=2, max_size=2), min_size=2, max_size=4))
def test_every_text_parses_back(grid):
    table = table_of(grid)
    parsed = read_csv(markup.to_csv([table.header, *texts(table)]))
    assert [[text.removeprefix("'") for text in line] for line in parsed] == [
        [text.removeprefix("'") for text in line] for line in grid
    ]
    parser = TableParser()
    parser.feed(markup.to_html(table))
    assert parser.rows == grid
    assert read_latex(markup.to_latex(table)) == grid
    lines = markup.to_markdown(table).splitlines()
    del lines[1]
    cells = [re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1] for line in lines]
    assert all(len(line) == 2 for line in cells)


@pytest.mark.parametrize("which", [0, 1])
def test_tables_parse_back(which):
    table = made(rows("kl", KL) + rows(T_SQUARED, GIFT) + rows("gift", KL[:2]))[which]
    expected = [list(table.header), *texts(table)]
    assert read_latex(markup.to_latex(table)) == expected
    assert read_csv(markup.to_csv([table.header, *texts(table)])) == expected
    parser = TableParser()
    parser.feed(markup.to_html(table))
    assert parser.rows == expected


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+cmd|' /C calc'!A0",
        "-2+3",
        "@SUM(1)",
        "\t=1",
        "\n=1",
        "\r@x",
        "=",
        "--1",
    ],
)
def test_no_text_of_a_csv_is_a_formula(text):
    ((cell, _),) = read_csv(markup.to_csv([[text, 1]]))
    assert cell == f"'{text.strip()}"


@pytest.mark.parametrize("value", ["+2.25", "-3", "+0.5", -1.5, 1e-9, 0, True])
def test_numbers_of_a_csv_stay_numbers(value):
    ((cell, empty),) = read_csv(markup.to_csv([[value, None]]))
    assert (cell, empty) == (str(value), "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[here](javascript:x)", r"[here\](javascript:x)"),
        ("![a](b)", r"![a\](b)"),
        ("[a][b]", r"[a\][b]"),
        ("<b>|</b>", r"\<b>\|\</b>"),
        ("https://example.org", r"https\://example.org"),
        ("www.example.org", r"www\.example.org"),
        ("*a* _b_ `c` ~~d~~", r"\*a\* \_b\_ \`c\` \~\~d\~\~"),
        ("a\n\n# b", "a # b"),
        ("@someone &lt; $x$", r"\@someone \&lt; \$x\$"),
        (T_SQUARED, T_SQUARED),
        ("[+0.51, +3.99]", "[+0.51, +3.99]"),
    ],
)
def test_names_in_markdown_are_only_text(text, expected):
    assert markup.escape_markdown(text) == expected


def test_a_line_break_in_a_name_ends_no_line_of_a_table():
    table = table_of([["a", "b"], ["x\ny\r\nz", "\u2028&\\\\"]])
    assert len(markup.to_markdown(table).splitlines()) == 3
    assert len(markup.to_csv(texts(table)).splitlines()) == 1
    assert r"x y z & \&" in markup.to_latex(table)
