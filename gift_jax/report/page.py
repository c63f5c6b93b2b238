"""The report as one Markdown file and as one page of HTML.

The page holds its pictures and its style: it opens anywhere, without a network.
"""

import base64
import html
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from gift_jax.pipeline import results
from gift_jax.pipeline.results import OPTIMIZER, Row
from gift_jax.report import formatting, markup
from gift_jax.report.figures import Figure
from gift_jax.report.groups import (
    FIELDS,
    FINGERPRINTS,
    TUNED,
    Group,
    distinguishing,
    is_at_edge,
)

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark; --text: #1c1c1e; --soft: #5f6368; --page: #ffffff;
  --stripe: #f5f6f8; --note: #fff4e0; --accent: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --text: #e8e8ea; --soft: #a2a6ad;
  --page: #16181c; --stripe: #1f2227; --note: #3a2f16; --accent: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; color: var(--text);
  background: var(--page); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
a { color: var(--accent); }
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
thead th { cursor: pointer; }
th[aria-sort]::after { content: " \\25B2"; font-size: .7em; }
th[aria-sort="descending"]::after { content: " \\25BC"; }
@media print {
  :root { color-scheme: light; --text: #000; --soft: #444; --page: #fff;
    --stripe: #f2f2f2; --note: #f2f2f2; --accent: #000; }
  body { max-width: none; padding: 0; } figure img { min-width: 0; }
  section { break-inside: avoid; } .scroll { overflow: visible; }
  table { font-size: .65rem; white-space: normal; } details { display: none; }
}
</style>
"""
# A click, or Enter, on a heading sorts by its column: numbers as such, intervals by
# their lower end, what is absent last, and once more the other way.
_SORT = """<script>
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.querySelectorAll("thead th")], body = table.tBodies[0];
  heads.forEach((head, column) => {
    const value = (row) => {
      const text = row.cells[column].textContent.replace("\u2212", "-");
      const number = parseFloat(text.replace("[", ""));
      const power = ["B", "kB", "MB", "GB", "TB"].indexOf(text.split(" ")[1]);
      return isNaN(number) ? text : number * 1000 ** Math.max(power, 0);
    };
    const sort = () => {
      const order = head.ariaSort === "ascending" ? "descending" : "ascending";
      const sign = order === "ascending" ? 1 : -1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      [...body.rows].sort((one, two) => {
        const [a, b] = [value(one), value(two)], kinds = [typeof a, typeof b];
        if (kinds[0] !== kinds[1]) return kinds[0] === "number" ? -1 : 1;
        return sign * (kinds[0] === "number" ? a - b : a.localeCompare(b));
      }).forEach((row) => body.append(row));
    };
    head.tabIndex = 0;
    head.title = "sort";
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => event.key === "Enter" && sort());
  });
}
</script>
"""


class Report(NamedTuple):
    """What both files hold: compared groups, and in `unreadable` the reasons."""

    heading: str
    rows: Sequence[Row]
    settings: Mapping[str, str]
    groups: Sequence[Group]
    choices: Sequence[Row]
    unreadable: Sequence[str]
    tables: Sequence[markup.Table]
    figures: Sequence[Figure]


def common_settings(groups: Sequence[Group]) -> dict[str, str]:
    """All settings in words, except those that the tables show, each with its values.

    Where optimizers differ in a setting, its values stand with their optimizers.
    """
    told = {*distinguishing(groups), *FINGERPRINTS, "loss_code", "loss"}
    found = {}
    for name in FIELDS:
        users: dict[str, dict[str, None]] = {}
        for g in groups:
            value = formatting.value_text(g.settings[name])
            users.setdefault(value, {})[g.settings["optimizer"]] = None
        if name in told or users.keys() == {formatting.ABSENT}:
            continue
        values = list(users)
        if len(users) > 1 and name in OPTIMIZER:
            values = [f"{value} ({', '.join(of)})" for value, of in users.items()]
        found[formatting.heading(name)] = ", ".join(values)
    return found


def made_by(rows: Iterable[Row]) -> dict[str, str]:
    """The versions and processors that rows were made with, as one setting."""
    fields = ("version", "jax_version", "devices", "processor")
    known = (row for row in rows if all(row.get(name) for name in fields))
    found = dict.fromkeys(
        "gift_jax {}, JAX {}, {} ({})".format(*(row[name] for name in fields))
        for row in known
    )
    return {"made by": "; ".join(found)} if found else {}


def notes(report: Report) -> list[str]:
    """What a reader must know before the numbers."""
    groups = {g.key: g for g in report.groups}.values()
    runs = len(report.rows)
    diverged = sum(row["status"] == results.DIVERGED for row in report.rows)
    found = [f"{runs} runs, {runs - diverged} finished and {diverged} diverged."]
    if diverged:
        found[0] += " Diverged runs are in no mean."
    if report.choices:
        found.append(_tuning_note(report.groups, report.choices))
    if any(len(g.rows) == 1 for g in groups):
        found.append(
            "Some settings have one run only: there is no standard deviation and no "
            "interval for them, and nothing can be concluded from a difference."
        )
    compared = [g for g in report.groups if g.difference.interval is not None]
    intervals = len({(g.key, g.baseline and g.baseline.key) for g in compared})
    if intervals > 1:
        found.append(
            f"{intervals} differences have an interval of 95% each, not corrected for "
            f"their number: about {0.05 * intervals:.1f} of them would exclude zero by "
            "chance if no loss differed from the baseline."
        )
    if report.unreadable:
        reasons = "; ".join(report.unreadable)
        found.append(f"What cannot be read is left out: {reasons}.")
    return found


def _tuning_note(groups: Sequence[Group], choices: Sequence[Row]) -> str:
    """What the tuned learning rates were chosen on, and what they lack."""
    images = _range(choice["validation_images"] for choice in choices)
    seeds = _range(len(choice["seeds"]) for choice in choices)
    note = (
        "Default is the optimizer's one learning rate for all losses. Tuned is the "
        f"best of {_range(len(c['tried']) for c in choices)} learning rates by top-1 "
        f"accuracy after the last epoch on {images} images held out from the training "
        f"data, over {seeds} seed{'s' * (seeds != '1')}; no test image took part in "
        "the choice."
    )
    at_edge = [f"{c['loss']} under {c['optimizer']}" for c in choices if is_at_edge(c)]
    if at_edge:
        note += (
            f" For {', '.join(at_edge)} the chosen rate is at the edge of those that "
            "were tried: a better one may lie beyond."
        )
    run = [g.choice for g in groups if g.rate == TUNED]
    missing = sum(bool(c["learning_rate"]) and c not in run for c in choices)
    if missing:
        note += f" With {missing} of the chosen rates no run is in the results."
    return note


def _range(values: Iterable[int]) -> str:
    least, *_, most = sorted([*values] * 2)
    return str(least) if least == most else f"{least} to {most}"


def to_markdown(report: Report) -> str:
    """The report in GitHub's Markdown; its pictures are files beside it."""
    plain = markup.escape_markdown
    parts = [f"# {plain(report.heading)}", *map(plain, notes(report))]
    settings = report.settings.items()
    parts.append("\n".join(f"- {name}: {plain(value)}" for name, value in settings))
    for table in report.tables:
        parts += [f"## {plain(table.heading)}", markup.to_markdown(table)]
        parts.append(plain(table.caption))
    for figure in report.figures:
        heading, file = plain(figure.heading), f"{figure.name}.png"
        link = f"![{heading}]({urllib.parse.quote(file, safe='=,+@')})"
        parts += [f"## {heading}", link, plain(figure.caption)]
    return "\n\n".join(filter(None, parts)) + "\n"


def to_html(report: Report) -> str:
    """The report as one page."""
    plain = html.escape
    heading, (first, *others) = plain(report.heading), notes(report)
    body = [f"<h1>{heading}</h1>\n<p>{plain(first)}</p>"]
    body += [f'<p class="note">{plain(note)}</p>' for note in others]
    settings = report.settings.items()
    terms = (
        f"<dt>{plain(name)}</dt><dd>{plain(value)}</dd>" for name, value in settings
    )
    body.append(f"<dl>{''.join(terms)}</dl>")
    for table in report.tables:
        body.append(
            f"<section>\n<h2>{plain(table.heading)}</h2>\n"
            f'<div class="scroll" tabindex="0">{markup.to_html(table)}</div>\n'
            f"<p>{plain(table.caption)}</p>\n<details><summary>LaTeX</summary>"
            f"<pre>{plain(markup.to_latex(table))}</pre></details>\n</section>"
        )
    for figure in report.figures:
        data = base64.b64encode(figure.png).decode()
        body.append(
            f"<section>\n<h2>{plain(figure.heading)}</h2>\n<figure>\n"
            f'<div class="scroll" tabindex="0"><img alt="{plain(figure.heading)}" '
            f'src="data:image/png;base64,{data}"></div>\n'
            f"<figcaption>{plain(figure.caption)} {_data_link(figure)}</figcaption>\n"
            "</figure>\n</section>"
        )
    page = "\n".join([f"<title>{heading}</title>\n</head>\n<body>", *body])
    return f"{_HEAD}{page}\n{_SORT}</body>\n</html>\n"


def _data_link(figure: Figure) -> str:
    content = base64.b64encode(markup.to_csv(figure.data).encode()).decode()
    name = html.escape(f"{figure.name}.png.csv")
    return f'<a download="{name}" href="data:text/csv;base64,{content}">Data (CSV)</a>'
