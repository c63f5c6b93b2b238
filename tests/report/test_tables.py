"""Tests of `gift_jax.report.tables` and `markup`: content, and parsing back."""

import csv
import html.parser
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_report_statistics import GIFT, KL, row, rows

from gift_jax.report import comparison, markup, statistics, tables
from gift_jax.report.markup import Cell, Table

ABSENT = "\N{EN DASH}"
LOSS = "kl-t_squared=True"


def made(all_rows, baseline="kl"):
    groups = statistics.group_rows(all_rows)
    losses = list(dict.fromkeys(group.loss for group in groups))
    comparisons = comparison.compare(groups, baseline)
    return (
        tables.accuracy_table(comparisons, losses),
        tables.comparison_table(comparisons, losses),
        tables.summary_columns(comparisons),
    )


def texts(table):
    return [[cell.text for cell in line] for line in table.rows]


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
    cell = re.sub(r"^\{(\[.*)\}$", r"\1", cell)
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


def test_accuracy_has_a_row_a_condition_and_a_column_a_loss():
    sgd = {"optimizer": "sgd", "learning_rate": 0.1}
    accuracy, *_ = made(
        rows("kl", KL) + rows("gift", GIFT) + rows("kl", [9.0, 10.0, 11.0, 12.0], **sgd)
    )
    assert accuracy.header == ["optimizer", "learning rate", "kl", "gift"]
    assert texts(accuracy) == [
        ["adamw", "0.001", "50.62 ± 1.49", "52.88 ± 2.02"],
        ["sgd", "0.1", "10.50 ± 1.29", ABSENT],
    ]
    assert [cell.verdict for cell in accuracy.rows[0]] == [0, 0, 0, 1]
    assert "n = 4 seeds" in accuracy.caption


def test_many_losses_are_rows():
    losses = ["kl", *(f"gift-gamma={i}" for i in range(8))]
    accuracy, *_ = made([r for loss in losses for r in rows(loss, KL)])
    assert accuracy.header == ["loss", "top-1"]
    assert [line[0] for line in texts(accuracy)] == losses


def test_comparison_states_interval_and_pairs():
    _, comparison, _ = made(rows("kl", KL) + rows("gift", GIFT))
    baseline, gift = texts(comparison)
    assert baseline[-3:] == ["baseline", ABSENT, ABSENT]
    difference = statistics.summarize([g - k for g, k in zip(GIFT, KL, strict=True)])
    low, high = difference.interval
    assert gift[-3:] == ["+2.25", f"[{low:+.2f}, {high:+.2f}]", "4"]


def test_one_seed_gives_no_interval_and_says_so():
    accuracy, comparison, _ = made(rows("kl", KL[:1]) + rows("gift", [99.0]))
    assert texts(accuracy) == [["50.00", "99.00"]]
    assert "n = 1: no standard deviation" in accuracy.caption
    assert texts(comparison)[1][-3:] == ["+49.00", "none (n = 1)", "1"]
    assert all(cell.verdict == 0 for line in accuracy.rows for cell in line)


def test_a_number_of_seeds_that_is_not_the_usual_one_is_in_the_cell():
    accuracy, *_ = made(rows("kl", KL) + rows("gift", GIFT[:2]))
    assert texts(accuracy) == [["50.62 ± 1.49", "53.50 ± 0.71 (n = 2)"]]
    assert "over n = 4 seeds where no other n is given" in accuracy.caption


def test_diverged_runs_are_shown():
    broken = [
        row("gift", s, 1.0, status="diverged", diverged_step=10 * s) for s in range(4)
    ]
    accuracy, comparison, (header, values) = made(
        rows("kl", KL) + rows("mse", KL[:3]) + [{**broken[3], "loss": "mse"}] + broken
    )
    (line,) = texts(accuracy)
    assert line == [
        "50.62 ± 1.49",
        "51.17 ± 1.26 (1 of 4 diverged)",
        "4 of 4 diverged",
    ]
    assert texts(comparison)[1][1] == "3 (1 diverged, step 30)"
    assert texts(comparison)[2][1] == "0 (4 diverged, steps 0 to 30)"
    gift = dict(zip(header, values[2], strict=True))
    assert (gift["finished"], gift["diverged"], gift["top1_last_mean"]) == (0, 4, None)


def test_survivors_are_not_bold():
    better = [99.0, 99.1, 99.3]
    broken = row("gift", 3, None, status="diverged")
    accuracy, comparison, _ = made([*rows("kl", KL), *rows("gift", better), broken])
    assert "\\textbf" not in markup.to_latex(accuracy) + markup.to_latex(comparison)
    assert texts(comparison)[1][-2].startswith("[+")


def test_nothing_is_bold_without_a_baseline():
    accuracy, *_ = made(rows("gift", GIFT) + rows("mse", KL), baseline=None)
    assert all(cell.verdict == 0 for line in accuracy.rows for cell in line)
    assert "No baseline" in accuracy.caption


def test_bold_is_what_excludes_zero_above_and_italic_below():
    accuracy, *_ = made(rows("kl", GIFT) + rows("gift", KL) + rows("mse", GIFT))
    line = markup.to_markdown(accuracy).splitlines()[-1]
    assert "| *50.62 ± 1.49* |" in line
    assert "**" not in line


def test_summary_has_full_precision():
    *_, (header, values) = made(rows("kl", KL) + rows("gift", GIFT))
    parsed = read_csv(markup.to_csv(header, values))
    gift = dict(zip(parsed[0], parsed[2], strict=True))
    assert gift["loss"] == "gift"
    assert float(gift["top1_last_mean"]) == sum(GIFT) / 4
    assert float(gift["difference_mean"]) == 2.25
    assert gift["top5_last_mean"] == ""
    assert (gift["baseline"], gift["pairs"]) == ("kl", "4")


def test_escaping_of_a_loss_with_hyperparameters():
    assert markup.escape_latex(LOSS) == r"kl-t\_squared=True"
    accuracy, *_ = made(rows("kl", KL) + rows(LOSS, GIFT))
    assert r"kl-t\_squared=True" in markup.to_latex(accuracy)
    assert LOSS in markup.to_markdown(accuracy)
    assert LOSS in markup.to_html(accuracy)


def test_latex_loads_nothing_but_booktabs_and_is_balanced():
    accuracy, comparison, _ = made(rows("kl", KL) + rows(LOSS, GIFT))
    for table in (accuracy, comparison):
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
    table = Table(
        name="t",
        title="",
        caption="",
        header=grid[0],
        rows=[[Cell(text) for text in line] for line in grid[1:]],
        text_columns=1,
    )
    as_csv = markup.to_csv(table.header, texts(table))
    assert read_csv(as_csv) == grid
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
    table = made(rows("kl", KL) + rows(LOSS, GIFT) + rows("gift", KL[:2]))[which]
    expected = [list(table.header), *texts(table)]
    assert read_latex(markup.to_latex(table)) == expected
    assert read_csv(markup.to_csv(table.header, texts(table))) == expected
    parser = TableParser()
    parser.feed(markup.to_html(table))
    assert parser.rows == expected
