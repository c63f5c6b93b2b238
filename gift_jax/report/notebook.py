"""The report inside a notebook."""

import dataclasses
import html
import os
import pathlib

from gift_jax.report import build, page


@dataclasses.dataclass(frozen=True)
class ShownReport:
    """A report that a notebook shows when it is the last line of a cell.

    Attributes:
      html: The whole page.
      markdown: The same without pictures, for notebooks that are turned into text.
      height: Height of its frame, in pixels.
    """

    html: str
    markdown: str
    height: int

    def _repr_html_(self) -> str:
        # In a frame, where neither style nor scripts reach the notebook's own.
        return (
            f'<iframe title="report" style="width: 100%; height: {self.height}px; '
            f'border: 1px solid #d0d0d0" srcdoc="{html.escape(self.html)}"></iframe>'
        )

    def _repr_markdown_(self) -> str:
        return self.markdown


def show_report(
    *workdirs: str | os.PathLike,
    baseline: str | None = None,
    against: str | os.PathLike | None = None,
    height: int = 600,
) -> ShownReport:
    """The report of work directories, to be seen in a notebook. Writes nothing.

    Args:
      *workdirs: Directories that hold results.jsonl; their runs are put together.
      baseline: Label of the loss to compare with; by default kl, or else kl x T^2,
        where it was run.
      against: An earlier work directory: a first table says what changed since.
      height: Height of the frame that shows it, in pixels.

    Raises:
      FileNotFoundError, InputError: see `build.make_report`.

    >>> show_report("workdir/digits", baseline="gift")  # doctest: +SKIP
    """
    old = None if against is None else pathlib.Path(against)
    report = build.make_report([pathlib.Path(w) for w in workdirs], baseline, old)
    without_pictures = report._replace(figures=[])
    return ShownReport(page.to_html(report), page.to_markdown(without_pictures), height)
