"""Tests of `gift_jax.report.page`: what both files say, and do not do."""

import base64
import html.parser
import re

import pytest

from gift_jax.report import page, tables
from gift_jax.report.figures import Figure
from tests.report.rows import (
    DEFAULT_RATE,
    GIFT,
    KL,
    RATES,
    choice,
    choices,
    compared,
    row,
    rows,
)

VOID = {"meta", "link", "img", "br"}
EVIL = '<script>x</script>"&[a](b) \n=1|'


class Page(html.parser.HTMLParser):
    """Checks that tags match, and collects what a page refers to."""

    def __init__(self, text):
        super().__init__()
        self.open, self.references, self.text, self.tags = [], [], "", []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        names = ("src", "href", "srcset", "action", "data", "poster")
        self.references += [value for name, value in attributes if name in names]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def made(all_rows, *, chosen=(), unreadable=(), figures=()):
    all_groups = compared(all_rows, "kl", chosen)
    losses = list(dict.fromkeys(group.loss for group in all_groups))
    table = tables.comparison_table(all_groups, losses)
    heading = "Results of work"
    settings = page.common_settings(all_groups)
    return page.Report(
        heading, all_rows, settings, all_groups, chosen, unreadable, [table], figures
    )


def test_the_page_needs_no_network():
    figure = Figure("a", "A", "the caption", b"png", [["loss", "x"], ["kl", 1.5]])
    report = made(rows("kl", KL), figures=[figure])
    text = page.to_html(report)
    found = Page(text)
    icon, picture, data = found.references
    assert (icon, picture) == ("data:,", "data:image/png;base64,cG5n")
    head, _, content = data.partition(",")
    assert head == "data:text/csv;base64"
    assert base64.b64decode(content) == b"loss,x\nkl,1.5\n"
    assert not re.search(r"https?:|url\(|@import|<script ", text)
    assert (found.tags.count("img"), found.tags.count("table")) == (1, 1)
    assert "the caption" in found.text


def test_names_are_only_text_in_both_files():
    evil = rows(EVIL, KL, student=EVIL) + rows("kl", GIFT, student="x")
    figure = Figure("distilled_a b)", EVIL, EVIL, b"", [[EVIL]])
    report = made(evil, unreadable=[EVIL], figures=[figure])._replace(heading=EVIL)
    found = Page(page.to_html(report))
    assert found.tags.count("script") == 1  # which sorts
    assert found.text.count("<script>x</script>") > 5
    text = page.to_markdown(report)
    assert not re.search(r"(?<!\\)<script|(?<!\\)\]\(b\)", text)
    assert "](distilled_a%20b%29.png)" in text
    assert len(re.findall("^#", text, re.MULTILINE)) == 3


def test_settings_that_all_have_in_common_are_listed_once():
    all_rows = [
        *rows("kl", KL, teacher=None),
        *rows("kl", KL, teacher=None, optimizer="sgd", weight_decay=0.0),
    ]
    settings = page.common_settings(compared(all_rows))
    assert settings["IPC"] == "10"
    assert settings["data seed"] == "0"
    assert settings["augmentation"] == "flip=True"
    assert settings["weight decay"] == "0.0001 (adamw), 0 (sgd)"
    # What tables tell, what nobody has, and fingerprints are not.
    assert not {"optimizer", "loss", "teacher", "trained on"} & settings.keys()


def test_what_made_the_rows_is_one_setting():
    made_of = {"version": "0.1.0+gabc", "jax_version": "0.10.2", "processor": "A CPU"}
    here = row("kl", 0, 50.0, devices="1 cpu", **made_of)
    there = {**here, "devices": "4 gpu", "processor": "B"}
    assert page.made_by([here, there, here]) == {
        "made by": "gift_jax 0.1.0+gabc, JAX 0.10.2, 1 cpu (A CPU); "
        "gift_jax 0.1.0+gabc, JAX 0.10.2, 4 gpu (B)"
    }
    assert page.made_by([row("kl", 0, 50.0)]) == {}


def test_notes_count_runs_and_intervals():
    lost = row("gift", 9, None, status="diverged")
    first, correction = page.notes(
        made([*rows("kl", KL), *rows("gift", GIFT), *rows("mse", GIFT), lost])
    )
    assert first.startswith("13 runs, 12 finished and 1 diverged.")
    assert correction.startswith("2 differences have an interval")
    (_, alone) = page.notes(made(rows("kl", KL[:1])))
    assert "one run only" in alone
    *_, last = page.notes(made(rows("kl", KL), unreadable=["a line 3: x", "b"]))
    assert last == "What cannot be read is left out: a line 3: x; b."


def test_a_group_of_two_kinds_of_rate_counts_once():
    chosen = choices(kl=DEFAULT_RATE)
    assert page.notes(made(rows("kl", KL), chosen=chosen))[0].startswith("4 runs")


def test_tuned_learning_rates_are_explained():
    tuned = rows("kl", KL, learning_rate=RATES[2])
    chosen = [*choices(kl=RATES[2], gift=RATES[0]), choice("mse", None)]
    _, note = page.notes(made(rows("kl", KL) + tuned, chosen=chosen))
    assert "best of 4 learning rates" in note
    assert "on 500 images held out from the training data, over 2 seeds" in note
    assert "For gift under adamw the chosen rate is at the edge" in note
    assert "With 1 of the chosen rates no run is in the results" in note
    other = [choice("kl", RATES[2], seeds=[0], validation_images=100)]
    _, note = page.notes(made(tuned, chosen=[*other, *chosen]))
    assert "on 100 to 500 images held out from the training data, over 1 to 2" in note


@pytest.mark.parametrize("write", [page.to_markdown, page.to_html])
def test_everything_is_in_both_files(write):
    report = made(
        rows("kl", KL) + rows("gift", GIFT),
        unreadable=["results.jsonl line 3: not JSON"],
        figures=[Figure("a", "The figure", "The caption", b"", [])],
    )
    text = write(report)
    for part in (
        "Results of work",
        "8 runs, 8 finished and 0 diverged",
        "results.jsonl line 3: not JSON",
        "float16",
        "Comparison with the baseline",
        "52.88 ± 2.02",
        "The figure",
        "The caption",
    ):
        assert part in text
