"""Links of the pages lead somewhere, and the site is built without a warning."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
_CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.M | re.S)


def anchors(page):
    """What GitHub and the site call the headings of a page in links."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


def links(page):
    text = _CODE.sub("", page.read_text())
    return re.findall(r"\]\((?!https?:)([^)\s]+)\)", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if page.is_relative_to(DOCS):  # the site has nothing else
            assert target.resolve().is_relative_to(DOCS), link
        if anchor:
            assert anchor in anchors(target), link


def test_links_and_headings_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b_c`, d!\n\n[x](y.md#z) `[no](no)` [w](https://w)\n```\n# n\n"
    )
    assert links(page) == ["y.md#z"]
    page.write_text("# A `b_c`, d!\n```\n# no\n```\n## E\n")
    assert anchors(page) == {"a-b_c-d", "e"}


def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocstrings")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "-d", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    api = (tmp_path / "api" / "index.html").read_text()
    assert 'id="gift_jax.losses.gift"' in api
    assert 'id="gift_jax.train.fit.fit"' in api
