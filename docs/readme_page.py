"""The README as the first page of the site; see mkdocs.yml."""

import pathlib
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_README = pathlib.Path(__file__).resolve().parents[1] / "README.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the README, in which links to what is not in docs/ become text."""
    text = _README.read_text()
    text = re.sub(r"\[([^\]]+)\]\((?!http|docs/|#)[^)]+\)", r"\1", text)
    text = text.replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=text))
    return files
