"""The report as one Markdown file and as one page of HTML.

The page holds its pictures and its style: it opens anywhere, without a network.
"""

import base64
import dataclasses
import html
from collections.abc import Sequence

from gift_jax.pipeline import results
from gift_jax.report import cells, markup
from gift_jax.report.comparison import Comparison, distinguishing
from gift_jax.report.markup import Table
from gift_jax.report.statistics import Group
from gift_jax.report.tuning import TUNED, Tuning

_STYLE = """
:root { color-scheme: light dark; --text: #1c1c1e; --soft: #5f6368; --line: #d9dce1;
  --page: #ffffff; --stripe: #f5f6f8; --note: #fff4e0; --accent: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --text: #e8e8ea; --soft: #a2a6ad;
  --line: #3a3d43; --page: #16181c; --stripe: #1f2227; --note: #3a2f16;
  --accent: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; color: var(--text);
  background: var(--page); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
p, figcaption { color: var(--soft); font-size: .9rem; margin: .4rem 0 .8rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; }
thead th { border-block: 2px solid var(--text); border-bottom-width: 1px; }
tbody tr:last-child td { border-bottom: 2px solid var(--text); }
tbody tr:nth-child(even) { background: var(--stripe); }
b { color: var(--accent); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem;
  font-size: .9rem; margin: 1rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.note { background: var(--note); color: var(--text); border-radius: .4rem;
  padding: .6rem .8rem; }
figure { margin: 0; }
figure img { display: block; width: 100%; min-width: 32rem; max-width: 44rem;
  height: auto; background: #fff; border-radius: .4rem; padding: .4rem; }
details { margin: .6rem 0; font-size: .85rem; } summary { cursor: pointer; }
pre { overflow-x: auto; background: var(--stripe); padding: .7rem;
  border-radius: .4rem; }
.number { text-align: right; padding: .3rem .4rem .3rem .7rem; }
"""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A plot.

    Attributes:
      name: Of its file, without the ending.
      title: One line.
      caption: What is to be seen.
      png: The file.
    """

    name: str
    title: str
    caption: str
    png: bytes


@dataclasses.dataclass(frozen=True)
class Report:
    """What both files hold.

    Attributes:
      title: One line.
      comparisons: Of all groups of runs.
      tunings: The choices of learning rates.
      unreadable: What is wrong with lines of the results that were passed over.
      tables: In their order.
      pictures: In their order.
    """

    title: str
    comparisons: Sequence[Comparison]
    tunings: Sequence[Tuning]
    unreadable: Sequence[str]
    tables: Sequence[Table]
    pictures: Sequence[Picture]

    @property
    def groups(self) -> list[Group]:
        """All groups of runs, each once."""
        return list({id(c.group): c.group for c in self.comparisons}.values())


def common_settings(report: Report) -> dict[str, str]:
    """All settings but those that the tables tell: each with its values."""
    told = {*distinguishing(report.comparisons), "loss"}
    recorded = {
        name
        for name in results.SETTINGS
        if any(group.settings[name] is not None for group in report.groups)
    }
    return {
        cells.HEADINGS[name]: _values(report.groups, name)
        for name in results.SETTINGS
        if name in recorded - told
    }


def _values(groups: Sequence[Group], name: str) -> str:
    """The values of a setting; an optimizer's several with their optimizers."""
    users: dict[str, dict[str, None]] = {}
    for group in groups:
        value = cells.format_setting(group.settings[name])
        users.setdefault(value, {})[group.settings["optimizer"]] = None
    if len(users) > 1 and name in results.SETUP:
        return ", ".join(f"{v} ({', '.join(names)})" for v, names in users.items())
    return ", ".join(users)


def notes(report: Report) -> list[str]:
    """What a reader must know before the numbers."""
    runs = sum(group.runs for group in report.groups)
    diverged = sum(len(group.diverged) for group in report.groups)
    found = [f"{runs} runs, {runs - diverged} finished and {diverged} diverged."]
    if diverged:
        found[0] += " Diverged runs are in no mean."
    if report.tunings:
        found.append(_tuning_note(report))
    if any(group.runs == 1 for group in report.groups):
        found.append(
            "Some settings have one run only: there is no standard deviation and no "
            "interval for them, and nothing can be concluded from a difference."
        )
    intervals = len(
        {
            (id(c.group), id(c.baseline))
            for c in report.comparisons
            if c.difference.interval is not None
        }
    )
    if intervals > 1:
        found.append(
            f"{intervals} differences have an interval of 95% each, not corrected for "
            f"their number: about {0.05 * intervals:.1f} of them would exclude zero by "
            "chance if no loss differed from the baseline."
        )
    if report.unreadable:
        found.append(
            f"Lines that cannot be read are left out: {'; '.join(report.unreadable)}."
        )
    return found


def _tuning_note(report: Report) -> str:
    """On how much the tuned learning rates were chosen, and what they lack."""
    images = _range([tuning.validation_images for tuning in report.tunings])
    seeds = _range([len(tuning.seeds) for tuning in report.tunings])
    tried = _range([len(tuning.tried) for tuning in report.tunings])
    note = (
        "Default is the optimizer's one learning rate for all losses. Tuned is the "
        f"best of {tried} learning rates by top-1 accuracy after the last epoch on "
        f"{images} images held out from the training data, over {seeds} "
        f"seed{'s' * (seeds != '1')}; no test image took part in the choice."
    )
    at_edge = [tuning for tuning in report.tunings if tuning.at_edge]
    if at_edge:
        which = ", ".join(
            f"{t.settings['loss']} under {t.settings['optimizer']}" for t in at_edge
        )
        note += (
            f" For {which} the chosen rate is at the edge of those that were tried: "
            "a better one may lie beyond."
        )
    run = {id(c.tuning) for c in report.comparisons if c.protocol == TUNED}
    missing = sum(
        tuning.learning_rate is not None and id(tuning) not in run
        for tuning in report.tunings
    )
    if missing:
        note += f" With {missing} of the chosen rates no run is in the results."
    return note


def _range(values: Sequence[int]) -> str:
    least, most = min(values), max(values)
    return str(least) if least == most else f"{least} to {most}"


def to_markdown(report: Report) -> str:
    """The report in GitHub's Markdown; its pictures are files beside it."""
    lines = [f"# {markup.escape_markdown(report.title)}", ""]
    for note in notes(report):
        lines += [markup.escape_markdown(note), ""]
    for name, value in common_settings(report).items():
        lines.append(f"- {name}: {markup.escape_markdown(value)}")
    for table in report.tables:
        lines += ["", f"## {table.title}", "", markup.to_markdown(table), ""]
        lines.append(markup.escape_markdown(table.caption))
    for picture in report.pictures:
        title = markup.escape_markdown(picture.title)
        lines += ["", f"## {title}", "", f"![{title}]({picture.name}.png)", ""]
        lines.append(markup.escape_markdown(picture.caption))
    return "\n".join(lines) + "\n"


def to_html(report: Report) -> str:
    """The report as one page."""
    title = html.escape(report.title)
    first, *others = notes(report)
    settings = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
        for name, value in common_settings(report).items()
    )
    body = [
        f"<h1>{title}</h1>",
        f"<p>{html.escape(first)}</p>",
        *(f'<p class="note">{html.escape(note)}</p>' for note in others),
        f"<dl>{settings}</dl>",
        *(_table_section(table) for table in report.tables),
        *(_picture_section(picture) for picture in report.pictures),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _table_section(table: Table) -> str:
    latex = html.escape(markup.to_latex(table))
    return (
        f"<section>\n<h2>{html.escape(table.title)}</h2>\n"
        f'<div class="scroll" tabindex="0">{markup.to_html(table)}</div>\n'
        f"<p>{html.escape(table.caption)}</p>\n"
        f"<details><summary>LaTeX</summary><pre>{latex}</pre></details>\n</section>"
    )


def _picture_section(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode()
    title = html.escape(picture.title)
    return (
        f"<section>\n<h2>{title}</h2>\n<figure>\n"
        f'<div class="scroll" tabindex="0"><img alt="{title}" '
        f'src="data:image/png;base64,{data}"></div>\n'
        f"<figcaption>{html.escape(picture.caption)}</figcaption>\n</figure>\n</section>"
    )
