"""All figures of a report, with their titles and captions."""

import collections
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import matplotlib.figure

from gift_jax.pipeline.results import SETUP
from gift_jax.report import (
    cells,
    curves,
    examples,
    pictures,
    plots,
    scaling,
    statistics,
    sweeps,
)
from gift_jax.report.comparison import Comparison, distinguishing
from gift_jax.report.reading import Curve, RunKey, run_key
from gift_jax.report.statistics import Group
from gift_jax.report.tuning import DEFAULT, TUNED, Tuning

_WHISKERS = "Mean over seeds after the last epoch, with 95% t-intervals"
_CROSSES = "A cross at the bottom: runs diverged."


class Figure(NamedTuple):
    """A figure.

    Attributes:
      name: Of its file, without the ending.
      title: One line.
      caption: What is to be seen.
      drawing: The figure itself.
    """

    name: str
    title: str
    caption: str
    drawing: matplotlib.figure.Figure


def make_figures(
    comparisons: Sequence[Comparison],
    losses: Sequence[str],
    tunings: Sequence[Tuning],
    runs: Mapping[RunKey, Curve],
) -> Iterator[Figure]:
    """All figures: what goes over blocks, those of each block, and the images.

    A block of one setup that is a point of a figure over blocks has none of its own.

    Args:
      comparisons: Of all groups.
      losses: All losses, in the order of their colours.
      tunings: The choices of learning rates.
      runs: How runs went.
    """
    over_ipc = scaling.ipc_panels(comparisons)
    if over_ipc:
        yield Figure(
            "ipc",
            "Accuracy over images per class",
            f"{_WHISKERS}; moved apart sideways to be seen. {_CROSSES}",
            scaling.over_ipc(over_ipc, losses),
        )
    over_bytes = scaling.byte_panels(comparisons)
    if over_bytes:
        yield Figure(
            "soft_label_bytes",
            "Accuracy over bytes of soft labels",
            f"{_WHISKERS}. A line a format; beside a point stands the number of views. "
            f"{_CROSSES}",
            scaling.over_bytes(over_bytes),
        )
    shown = {c.group.block for panel in (*over_ipc, *over_bytes) for c in panel}
    blocks = collections.defaultdict(list)
    for c in comparisons:
        blocks[c.group.block].append(c)
    names = [name for name in distinguishing(comparisons) if name not in SETUP]
    for number, members in enumerate(blocks.values(), start=1):
        suffix = f"_{number}" if len(blocks) > 1 else ""
        first = members[0]
        where = ", ".join(
            f"{cells.HEADINGS[name]} {cells.condition_text(first, name)}"
            for name in names
        )
        chosen = [t for t in tunings if _is_of_block(t, first.group)]
        found = list(_learning_rates(members, losses, chosen))
        if first.group.block not in shown or len({c.setup for c in members}) > 1:
            found = [*_accuracies(members, losses), *found]
            found += _over_epochs(members, losses, runs)
        for name, title, caption, drawing in found:
            title += f": {where}" if where else ""
            yield Figure(name + suffix, title, caption, drawing)
    yield from _images(comparisons)


def _is_of_block(tuning: Tuning, group: Group) -> bool:
    own = ("optimizer", "weight_decay", "schedule", "loss")
    return tuning.is_for({**group.settings, **{n: tuning.settings.get(n) for n in own}})


def _accuracies(
    members: Sequence[Comparison], losses: Sequence[str]
) -> Iterator[Figure]:
    yield Figure(
        "accuracy",
        "Accuracy",
        "Mean over seeds after the last epoch; points are the single seeds, whiskers "
        "the 95% t-interval of the mean. With an optimizer stands its learning rate.",
        plots.bars(members, losses),
    )
    compared = [c for c in members if c.difference.mean is not None]
    if compared:
        yield Figure(
            "differences",
            "Paired differences",
            "Paired over seeds, with 95% t-intervals. Filled where the interval "
            "excludes zero and no run of either diverged; no interval where there is "
            "one pair.",
            plots.differences(compared, losses),
        )


def _learning_rates(
    members: Sequence[Comparison], losses: Sequence[str], tunings: Sequence[Tuning]
) -> Iterator[Figure]:
    """On held-out images where rates were tuned, else on the test split."""
    tunings = [t for t in tunings if t.settings["loss"] in losses]
    if tunings:
        yield Figure(
            "learning_rates",
            "Accuracy over learning rate",
            "On images held out from the training data, mean over seeds after the last "
            "epoch; moved apart sideways to be seen. A ring is around the rate that "
            f"was chosen, a dotted line at the default. {_CROSSES}",
            sweeps.held_out_learning_rates(tunings, losses),
        )
        return
    groups = [c.group for c in members]
    rates = collections.defaultdict(set)
    for group in groups:
        rates[group.settings["optimizer"], group.loss].add(
            group.settings["learning_rate"]
        )
    several = [g for g in groups if len(rates[g.settings["optimizer"], g.loss]) > 1]
    if several:
        yield Figure(
            "learning_rates",
            "Accuracy over learning rate",
            f"{_WHISKERS}, on the test split; moved apart sideways to be seen. "
            f"{_CROSSES}",
            sweeps.learning_rates(several, losses),
        )


def _over_epochs(
    members: Sequence[Comparison],
    losses: Sequence[str],
    runs: Mapping[RunKey, Curve],
) -> Iterator[Figure]:
    def curves_of(comparison: Comparison) -> list[Curve]:
        keys = [run_key(row) for row in comparison.group.rows]
        return [runs[key] for key in keys if key in runs]

    drawn = [c for c in _without_repeats(members) if curves_of(c)]
    if drawn:
        yield Figure(
            "learning_curves",
            "Learning curves",
            "Mean and range over the finished runs; a run that diverged is dotted and "
            "ends in a cross.",
            curves.learning_curves(drawn, runs, losses),
        )
    with_norms = [c for c in drawn if any(len(r.gradient) for r in curves_of(c))]
    if with_norms:
        yield Figure(
            "gradient_norms",
            "Gradient norms through training",
            "Global norm of the gradient of the loss, mean over the steps of an epoch; "
            "mean and range over the finished runs. A run that diverged is dotted and "
            "ends in a cross.",
            curves.gradient_norms(with_norms, runs, losses),
        )


def _without_repeats(members: Sequence[Comparison]) -> list[Comparison]:
    """All but the tuned setups whose learning rates are all the default."""
    at_default = {id(c.group) for c in members if c.protocol == DEFAULT}
    differ = {c.setup for c in members if id(c.group) not in at_default}
    return [c for c in members if c.protocol != TUNED or c.setup in differ]


def _images(comparisons: Sequence[Comparison]) -> Iterator[Figure]:
    """One figure a distilled dataset, with the first of its soft labels."""
    first: dict[tuple[pathlib.Path, str], statistics.Row] = {}
    for row in (row for c in comparisons for row in c.group.rows):
        first.setdefault((row["workdir"], _directory(row, "distilled_dir")), row)
    names = [name for _, name in first]
    taken = set()
    for (workdir, name), row in first.items():
        labels_name = row.get("soft_labels_dir")
        if "distilled_dir" not in row:
            labels_name = name
        shown = examples.read_examples(workdir, name, labels_name)
        if shown is None:
            continue
        unique = name if names.count(name) == 1 else f"{row['dataset']}_{name}"
        while unique in taken:
            unique += "_"
        taken.add(unique)
        yield Figure(
            f"distilled_{unique}",
            f"Distilled images and soft labels: {unique}",
            _examples_caption(shown),
            pictures.examples(shown),
        )


def _directory(row: statistics.Row, field: str) -> str:
    """The name of a product; rows of old versions do not say."""
    return row.get(field) or f"{row.get('distill')}_ipc{row.get('ipc')}"


def _examples_caption(shown: examples.Examples) -> str:
    caption = "The first image of each of the first classes"
    if shown.problem:
        return f"{caption}. Their soft labels cannot be read: {shown.problem}."
    if shown.probabilities is None:
        return f"{caption}. No soft labels are stored in the work directory."
    if shown.views is None:
        return (
            f"{caption}, and the softmax of the soft label that was published with it, "
            "at temperature 1."
        )
    return (
        f"{caption}; its augmented view 0, made anew; and the softmax of the teacher's "
        "logits of that view, at temperature 1. The hard label is in colour."
    )
