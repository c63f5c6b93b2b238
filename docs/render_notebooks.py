"""Runs the notebooks at full size, and writes them with their pictures as Markdown.

    python docs/render_notebooks.py [NAME...]

needs the extra `docs`. The pages go to docs/notebooks, and say how long a notebook took
and how much memory.
"""

import io
import os
import pathlib
import platform
import sys
import tempfile
import time
from typing import Any

import jax
import jupytext
import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from PIL import Image
from traitlets.config import Config

DOCS = pathlib.Path(__file__).resolve().parent
SOURCES = DOCS.parent / "experiments" / "notebooks"
# A report is text and tables here, and a page with pictures in a notebook only.
_SHOWN = ["image/png", "text/markdown", "text/plain"]
_COLORS = 64
_PEAK = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"


def render(script: pathlib.Path, out: pathlib.Path) -> None:
    """Runs one notebook in an empty folder, and writes its page and pictures."""
    notebook = jupytext.read(script)
    notebook.cells.append(nbformat.v4.new_code_cell(_PEAK))
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        started = time.perf_counter()
        NotebookClient(notebook, timeout=None, resources=resources).execute()
        seconds = time.perf_counter() - started
    peak = int(notebook.cells.pop().outputs[0].text) / 2**20
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if _is_shown(out)]
    page, pictures = _to_markdown(notebook, script.stem)
    versions = f"JAX {jax.__version__} and Python {platform.python_version()}"
    load = f"load average {os.getloadavg()[2]:.0f}"  # other work makes it slower
    (out / f"{script.stem}.md").write_text(
        f"{page.strip()}\n\n---\n\nRun from top to bottom in {seconds:.0f} s, with a "
        f"peak of {peak:.2f} GiB of memory, on {os.cpu_count()} cores of an "
        f"{platform.machine()} CPU ({load}) with {versions} "
        f"(`python docs/render_notebooks.py {script.stem}`).\n"
    )
    for name, png in pictures.items():
        (out / name).write_bytes(_smaller(png))


def _is_shown(output: Any) -> bool:
    """Not progress bars and warnings."""
    return output.get("name") != "stderr"


def _to_markdown(notebook: Any, name: str) -> tuple[str, dict[str, bytes]]:
    config = Config()
    config.NbConvertBase.display_data_priority = _SHOWN
    config.ExtractOutputPreprocessor.enabled = True
    exporter = MarkdownExporter(config=config)
    page, resources = exporter.from_notebook_node(notebook, {"unique_key": name})
    return page, resources["outputs"]


def _smaller(png: bytes) -> bytes:
    """A picture with a palette, which plots need no more than."""
    stream = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(_COLORS)
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def main(names: list[str]) -> None:
    """Renders the notebooks of these names, or all."""
    out = DOCS / "notebooks"
    out.mkdir(exist_ok=True)
    for name in names or sorted(path.stem for path in SOURCES.glob("*.py")):
        render(SOURCES / f"{name}.py", out)


if __name__ == "__main__":
    main(sys.argv[1:])
