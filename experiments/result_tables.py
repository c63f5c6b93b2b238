"""Tables of README.md, docs/results.md and docs/theory.md, written from measured rows.

    python -m experiments.result_tables

A folder of docs/rows holds the results.jsonl of one work directory as it is, and its
tuning.jsonl where it has one, so that `python -m gift_jax.report docs/rows/NAME...`
reports it, too. A table stands in a page between a marker and `<!-- end -->`:

    <!-- accuracies: NAME -->           losses by optimizers, of one folder
    <!-- tuned: NAME -->                the same, each at its default and its own rate
    <!-- calibration: NAME -->          of the three optimizers that most folders have
    <!-- regrets: LOSS... -->           the largest regret of losses, by folder
    <!-- leads: LOSS OTHER -->          how far a loss is ahead of another, by folder
    <!-- optimizers: MUON ADAMW -->     the same of optimizers, by folder and loss

The figure of all regrets is drawn anew, too.
"""

import argparse
import functools
import pathlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence

from gift_jax.pipeline.results import RESULTS_FILE
from gift_jax.report import regret, style
from gift_jax.report.formatting import ABSENT, summary_text
from gift_jax.report.groups import DEFAULT, TUNED, Group, compare, group_rows
from gift_jax.report.markup import markdown_table
from gift_jax.report.reading import read_results
from gift_jax.report.statistics import Summary, pair

ROOT = pathlib.Path(__file__).resolve().parents[1]
ROWS = ROOT / "docs" / "rows"
PAGES = [ROOT / name for name in ("README.md", "docs/results.md", "docs/theory.md")]
FIGURE = ROOT / "docs" / "images" / "regret.png"

# Titles of folders where several are compared, in the order of the tables.
TITLES = {
    "cifar10_w32_100": "CIFAR-10, RDED, width 32, 200 steps",
    "cifar10_w32_100_tuned": "CIFAR-10, RDED, width 32, 200 steps, tuned rates",
    "cifar10_w32_300": "CIFAR-10, RDED, width 32, 600 steps",
    "cifar10_w32_1000": "CIFAR-10, RDED, width 32, 2,000 steps",
    "cifar10_w128_300": "CIFAR-10, RDED, official width (128), 600 steps",
    "cifar10_no_augmentation": "CIFAR-10, RDED, width 32, 600 steps, no augmentation",
    "fashion_mnist": "Fashion-MNIST, RDED, width 32, 200 steps",
    "cifar10_ipc1": "CIFAR-10, RDED, IPC 1, width 32, 300 steps",
    "cifar10_ipc50": "CIFAR-10, RDED, IPC 50, width 32, 1,000 steps",
    "digits": "digits (8x8), RDED, width 32, 200 steps",
    "digits_tuned": "digits (8x8), RDED, width 32, 200 steps, tuned rates",
    "cifar100_rded": "CIFAR-100, RDED, ConvNet-3 teacher, width 32, 600 steps",
    "cifar100_rded_300": "CIFAR-100, RDED, ConvNet-3 teacher, width 32, 3,000 steps",
    "cifar100_d4m_conv3": "CIFAR-100, D4M, ConvNet-3 teacher, width 32, 600 steps",
    "cifar100_d4m_resnet56": "CIFAR-100, D4M, ResNet-56 teacher, width 32, 600 steps",
    "tiny_imagenet_d4m": "Tiny-ImageNet, D4M, IPC 1, MobileNetV2 teacher, 400 steps",
}
_LOSSES = {
    "kl": "`kl` (official: T = 20, no T^2)",
    "kl-t_squared=True": "`kl` x T^2",
}
_OPTIMIZERS = {
    "sgd": "SGD",
    "adam": "Adam",
    "adamw": "AdamW",
    "rmsprop": "RMSprop",
    "lamb": "LAMB",
    "lion": "Lion",
    "adafactor": "Adafactor",
    "muon": "Muon",
    "schedule_free_adamw": "SF-AdamW",
    "prodigy": "Prodigy",
}
# Variants of the loss, not its default: shown beside it, but with no regret of their
# own, and never the best that others are behind.
_VARIANT = "standardized_gift-"
_IN_MOST_FOLDERS = ("sgd", "adamw", "muon")
# With more optimizers than these cells hold means only.
_WITH_DEVIATIONS = 4


def read(folder: str) -> list[Group]:
    """The runs of a folder of docs/rows, grouped over seeds.

    Raises:
      FileNotFoundError: it has no results.
      InputError: they cannot be read.
    """
    rows, choices, _ = read_results([ROWS / folder])
    return compare(group_rows(rows), None, choices)


def measured() -> dict[str, list[Group]]:
    """The folders that exist, in the order of `TITLES`; where tuned, at tuned rates."""
    return {
        name: [group for group in read(name) if group.rate != DEFAULT]
        for name in TITLES
        if (ROWS / name / RESULTS_FILE).exists()
    }


def accuracies(folder: str) -> str:
    """Losses by optimizers: top-1 after the last epoch, largest and mean regret."""
    groups = read(folder)
    optimizers = _in_order({g.setting("optimizer") for g in groups})
    behind = _regrets(groups)
    found = {(g.loss, g.setting("optimizer")): g.summary("top1_last") for g in groups}
    usual = max(summary.n for summary in found.values())
    is_wide = len(optimizers) > _WITH_DEVIATIONS
    cell, digits = (_mean, 1) if is_wide else (_mean_and_deviation, 2)
    table = [["loss", *(_OPTIMIZERS[o] for o in optimizers), "largest regret", "mean"]]
    for loss in dict.fromkeys(g.loss for g in groups):
        one = behind.get(loss)
        points = (one.largest, one.mean) if one else ()
        table.append(
            [
                _name(loss),
                *(cell(found.get((loss, o), Summary()), usual) for o in optimizers),
                *([f"{value:.{digits}f}" for value in points] or [ABSENT] * 2),
            ]
        )
    return markdown_table(table, text_columns=1)


def tuned(folder: str) -> str:
    """Losses by optimizers, each at its default rate and at the rate chosen for it.

    Regrets are to the best loss under an optimizer at any of these rates.
    """
    groups = {(g.loss, g.setting("optimizer"), g.rate): g for g in read(folder)}
    behind = {
        (one.loss, one.is_tuned): one.largest
        for one in regret.regrets([*groups.values()])
    }
    run = _in_order({optimizer for _, optimizer, _ in groups})
    header = [text for name in run for text in (_OPTIMIZERS[name], "tuned")]
    table = [["loss", *header, "largest regret", "tuned"]]
    for loss in dict.fromkeys(loss for loss, _, _ in groups):
        row = [_name(loss)]
        for optimizer in run:
            default, own = (groups[loss, optimizer, r] for r in (DEFAULT, TUNED))
            rate = own.settings["learning_rate"]
            row.append(summary_text(default.summary("top1_last")))
            row.append(f"{rate:g}: {summary_text(own.summary('top1_last'))}")
        row += [f"{behind[loss, is_tuned]:.1f}" for is_tuned in (False, True)]
        table.append(row)
    return markdown_table(table, text_columns=1)


def calibration(folder: str) -> str:
    """ECE and NLL, as they are and after temperature scaling, and that temperature."""
    groups = {(g.loss, g.setting("optimizer")): g for g in read(folder)}
    names = [_OPTIMIZERS[optimizer] for optimizer in _IN_MOST_FOLDERS]
    table = [["loss", *(text for o in names for text in (f"{o}: ECE", "NLL", "T"))]]
    for loss in dict.fromkeys(loss for loss, _ in groups):
        row = [_name(loss)]
        for optimizer in _IN_MOST_FOLDERS:
            of = functools.partial(_last, groups[loss, optimizer])
            row.append(f"{of('ece')} / {of('scaled_ece')}")
            row.append(f"{of('nll')} / {of('scaled_nll')}")
            row.append(of("calibration_temperature"))
        table.append(row)
    return markdown_table(table, text_columns=1)


def regrets(*losses: str) -> str:
    """The largest regret of losses in every folder, to the best of all that it has."""
    table = [["largest regret", *(_name(loss) for loss in losses)]]
    for name, groups in measured().items():
        found = _regrets(groups)
        largest = (f"{found[n].largest:.1f}" if n in found else ABSENT for n in losses)
        table.append([TITLES[name], *largest])
    return markdown_table(table, text_columns=1)


def _regrets(groups: Sequence[Group]) -> dict[str, regret.Regrets]:
    """Regrets by loss, of groups at one kind of learning rates."""
    return {one.loss: one for one in regret.regrets(_compared(groups))}


def _compared(groups: Sequence[Group]) -> list[Group]:
    return [group for group in groups if not group.loss.startswith(_VARIANT)]


def leads(loss: str, other: str) -> str:
    """How far a loss is ahead of another, paired, by folder and optimizer."""
    return _differences("loss", (loss, other), by="optimizer", of=_IN_MOST_FOLDERS)


def optimizers(optimizer: str, other: str) -> str:
    """How far an optimizer is ahead of another, paired, by folder and loss."""
    groups = [group for of_folder in measured().values() for group in of_folder]
    losses = dict.fromkeys(group.loss for group in _compared(groups))
    return _differences("optimizer", (optimizer, other), by="loss", of=tuple(losses))


def _differences(
    setting: str, values: tuple[str, str], *, by: str, of: Sequence[str]
) -> str:
    """Two values of a setting, paired over seeds: folders by values of another one."""
    table = [[" minus ".join(map(_name, values)), *map(_name, of)]]
    for folder, groups in measured().items():
        finished = {(g.setting(by), g.setting(setting)): g.finished for g in groups}
        cells = [
            _difference(pair(*(finished.get((column, value), {}) for value in values)))
            for column in of
        ]
        if any(cell != ABSENT for cell in cells):
            table.append([TITLES[folder], *cells])
    return markdown_table(table, text_columns=1)


def _in_order(run: Collection[str]) -> list[str]:
    """Optimizers as they stand in all tables."""
    return [name for name in _OPTIMIZERS if name in run]


def _name(name: str) -> str:
    """Name of a loss or an optimizer in the tables."""
    return _OPTIMIZERS.get(name) or _LOSSES.get(name, f"`{name}`")


def _mean(summary: Summary, usual: int) -> str:
    return ABSENT if summary.mean is None else f"{summary.mean:.1f}"


def _mean_and_deviation(summary: Summary, usual: int) -> str:
    is_usual = summary.n in (0, usual)
    return summary_text(summary) + ("" if is_usual else f" (n = {summary.n})")


def _last(group: Group, name: str) -> str:
    """Mean over seeds of what was measured after the last epoch."""
    mean = group.summary(f"{name}_last").mean
    return ABSENT if mean is None else f"{mean:.2f}"


def _difference(summary: Summary) -> str:
    if summary.mean is None:
        return ABSENT
    text = f"{summary.mean:.1f}"
    if summary.interval:
        text += " [{:.1f}, {:.1f}]".format(*summary.interval)
    return text.replace("-", "\N{MINUS SIGN}")


_TABLES: Mapping[str, Callable[..., str]] = {
    "accuracies": accuracies,
    "tuned": tuned,
    "calibration": calibration,
    "regrets": regrets,
    "leads": leads,
    "optimizers": optimizers,
}


_MARKED = re.compile(
    rf"(<!-- (?P<kind>{'|'.join(_TABLES)}): (?P<names>[^>]+) -->\n).*?(<!-- end -->)",
    re.S,
)


def filled_in(page: str) -> str:
    """A page with its marked tables as the rows have them."""

    def table(match: re.Match[str]) -> str:
        text = _TABLES[match["kind"]](*match["names"].split())
        return f"{match[1]}{text}\n{match[4]}"

    return _MARKED.sub(table, page)


def main() -> None:
    """Writes the tables and the figure of regrets."""
    for page in PAGES:
        page.write_text(filled_in(page.read_text()))
    groups = [group for of_folder in measured().values() for group in of_folder]
    losses = list(dict.fromkeys(group.loss for group in groups))
    drawn = regret.regrets(_compared(groups))
    FIGURE.write_bytes(style.png(regret.figure(drawn, losses)))


if __name__ == "__main__":
    argparse.ArgumentParser(prog="result_tables", description=main.__doc__).parse_args()
    main()
