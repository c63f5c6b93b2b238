"""The notebooks run from top to bottom, at small size."""

import os
import pathlib
import re

import pytest

jupytext = pytest.importorskip("jupytext")
nbclient = pytest.importorskip("nbclient")

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "experiments" / "notebooks"
# The line of each that sets its size, for a run of seconds.
SMALL = {
    "gift_in_ten_minutes": "EPOCHS, TEACHER_EPOCHS, NETWORK = 2, 2, 'conv1'",
    "bring_your_own": "EPOCHS, NETWORK, SEEDS = 2, 'conv1', (0,)",
    "make_a_distilled_set": (
        "EPOCHS, TEACHER_EPOCHS, ITERATIONS, NETWORK = 2, 2, 3, 'conv1'"
    ),
}


@pytest.mark.parametrize("script", sorted(NOTEBOOKS.glob("*.py")), ids=lambda p: p.stem)
def test_the_notebook_is_its_script(script):
    ours, theirs = (
        jupytext.read(p).cells for p in (script, script.with_suffix(".ipynb"))
    )
    assert [c.source for c in ours] == [c.source for c in theirs]
    assert not any(cell.get("outputs") for cell in theirs)
    assert script.stem in SMALL


@pytest.mark.parametrize("script", sorted(NOTEBOOKS.glob("*.py")), ids=lambda p: p.stem)
def test_the_page_is_of_this_notebook(script):
    page = (ROOT / "docs" / "notebooks" / f"{script.stem}.md").read_text()
    places = [page.find(cell.source) for cell in jupytext.read(script).cells]
    assert -1 not in places and places == sorted(places)
    assert re.search(
        r"Run from top to bottom in \d+ s, with a peak of [\d.]+ GiB", page
    )


@pytest.fixture
def executed(request, tmp_path, monkeypatch):
    """What a notebook prints, and its pictures, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    one_device = re.sub(r"count=\d+", "count=1", os.environ["XLA_FLAGS"])
    monkeypatch.setenv("XLA_FLAGS", one_device)
    notebook = jupytext.read(NOTEBOOKS / f"{request.param}.py")
    small = SMALL[request.param]
    size = re.compile(f"^{small.partition('=')[0]}= .*$", re.M)
    (cell,) = (c for c in notebook.cells if size.search(c.source))
    cell.source = size.sub(small, cell.source)
    nbclient.NotebookClient(notebook, timeout=600).execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    said = "".join(out["text"] for out in outputs if out.get("name") == "stdout")
    shown = [out["data"] for out in outputs if "data" in out]
    return said, shown


def pictures(shown):
    return sum("image/png" in data for data in shown)


@pytest.mark.parametrize("executed", ["gift_in_ten_minutes"], indirect=True)
def test_gift_in_ten_minutes(executed, tmp_path):
    said, shown = executed
    assert pictures(shown) == 3  # the images, a label, the bars
    assert said.count("top-1") == 2 * 3
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("executed", ["bring_your_own"], indirect=True)
def test_bring_your_own(executed, tmp_path):
    said, shown = executed
    assert pictures(shown) == 2  # the images, the curves
    assert said.count("top-1") == 1 + 2 * 3 + 1
    assert "all weights are equal: True" in said
    assert "goes on after epoch 0" in said
    assert "<iframe" in shown[-1]["text/html"]
    assert "my_own:huber" in shown[-1]["text/markdown"]
    assert {p.name for p in tmp_path.iterdir()} >= {"bring_your_own", "my_own.py"}


@pytest.mark.slow
@pytest.mark.parametrize("executed", ["make_a_distilled_set"], indirect=True)
def test_make_a_distilled_set(executed, tmp_path):
    said, shown = executed
    # RDED's images, SRe2L's as they came to be, noise becoming images, the bars.
    assert pictures(shown) == 4
    assert said.count("iterations:") == 4
    assert said.count("top-1") == 1 + 3
    assert not list(tmp_path.iterdir())
