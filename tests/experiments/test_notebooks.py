"""The notebooks run from top to bottom, at small size."""

import pathlib

import pytest

jupytext = pytest.importorskip("jupytext")
nbclient = pytest.importorskip("nbclient")

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "experiments" / "notebooks"
SIZES = "EPOCHS, TEACHER_EPOCHS = 200, 30"


@pytest.mark.parametrize("script", sorted(NOTEBOOKS.glob("*.py")), ids=lambda p: p.stem)
def test_the_notebook_is_its_script(script):
    ours, theirs = (
        jupytext.read(p).cells for p in (script, script.with_suffix(".ipynb"))
    )
    assert [c.source for c in ours] == [c.source for c in theirs]
    assert not any(cell.get("outputs") for cell in theirs)


def test_gift_in_ten_minutes(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=1")
    notebook = jupytext.read(NOTEBOOKS / "gift_in_ten_minutes.py")
    (cell,) = (c for c in notebook.cells if SIZES in c.source)
    cell.source = cell.source.replace("200, 30", "2, 2")
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    pictures = [out for out in outputs if "image/png" in out.get("data", ())]
    assert len(pictures) == 3  # the images, a label, the bars
    said = "".join(out.get("text", "") for out in outputs)
    assert said.count("top-1") == 2 * 3
    assert not list(tmp_path.iterdir())
