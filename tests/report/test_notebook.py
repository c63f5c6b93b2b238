"""Tests of `gift_jax.report.notebook`: what a notebook shows of work directories."""

import html
import re

import pytest

from gift_jax.report import build, notebook, page
from tests.report.rows import GIFT, KL, rows, write_rows


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("work") / "runs"
    write_rows(directory, [*rows("kl", KL), *rows("gift", GIFT)])
    return directory


def test_the_frame_holds_the_whole_page(workdir):
    shown = notebook.show_report(workdir, height=321)
    (source,) = re.findall(r'srcdoc="([^"]*)"', shown._repr_html_())
    assert html.unescape(source) == page.to_html(build.make_report([workdir]))
    assert "height: 321px" in shown._repr_html_()
    assert not (workdir / "report").exists()


def test_as_text_it_has_the_tables_and_no_picture(workdir):
    text = notebook.show_report(workdir, baseline="gift")._repr_markdown_()
    assert "| 50.62 ± 1.49 |" in text
    assert "Bold is better than gift" in text
    assert ".png)" not in text
