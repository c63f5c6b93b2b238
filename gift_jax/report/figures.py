"""All figures of a report, with their headings and captions."""

import collections
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import matplotlib.figure

from gift_jax.pipeline.results import BENCHMARK, OPTIMIZER, Row
from gift_jax.report import (
    continual,
    figure_data,
    lines,
    matrix,
    measurements,
    plots,
    regret,
    style,
)
from gift_jax.report.examples import Examples
from gift_jax.report.formatting import heading, setting_text
from gift_jax.report.groups import DEFAULT, TUNED, Group, distinguishing, is_for

_WHISKERS = "Mean over seeds after the last epoch, with 95% t-intervals"
_APART = "moved apart sideways to be seen"
_CROSSES = "A cross at the bottom: runs diverged."
_RANGE = "ean and range over the finished runs; a run that diverged is dotted and ends "


class Figure(NamedTuple):
    """Name of the file without its ending, heading, caption, and the file itself.

    `data` are the numbers that are drawn, as rows with a header.
    """

    name: str
    heading: str
    caption: str
    png: bytes
    data: figure_data.Data


def _figure(
    name: str,
    heading: str,
    caption: str,
    drawing: matplotlib.figure.Figure,
    data: figure_data.Data,
) -> Figure:
    return Figure(name, heading, caption, style.png(drawing), data)


def over_steps(curves: Sequence[continual.Curve]) -> Figure:
    """The figure of class-incremental training."""
    return _figure(
        "continual",
        "Class-incremental: accuracy over steps",
        "Mean over orders of the classes, with 95% t-intervals; accuracy on the test "
        f"images of the classes so far. {_APART.capitalize()}.",
        continual.figure(curves),
        continual.data(curves),
    )


def make_figures(
    groups: Sequence[Group],
    losses: Sequence[str],
    choices: Sequence[Row],
    curves: lines.Curves,
    examples: Sequence[Examples],
) -> Iterator[Figure]:
    """All figures: those over benchmarks, those of each benchmark, and the images.

    A benchmark with one optimizer that is a point in a figure over benchmarks has no
    figure of its own.

    Args:
      groups: All groups, compared.
      losses: All losses, in the order of their colours.
      choices: Rows of chosen learning rates.
      curves: Curves by run.
      examples: Examples of distilled images.
    """
    over_ipc = lines.panels_of(groups, lines.OVER_IPC)
    over_bytes = lines.panels_of(groups, lines.OVER_BYTES)
    if over_ipc:
        yield _figure(
            "ipc",
            "Accuracy over images per class",
            f"{_WHISKERS}; {_APART}. {_CROSSES}",
            lines.over_setting(over_ipc, lines.OVER_IPC, losses),
            figure_data.of_runs([g for panel in over_ipc for g in panel]),
        )
    if over_bytes:
        yield _figure(
            "soft_label_bytes",
            "Accuracy over bytes of soft labels",
            f"{_WHISKERS}. A line a format; beside a point stands the number of views. "
            f"{_CROSSES}",
            lines.over_setting(over_bytes, lines.OVER_BYTES, losses),
            figure_data.of_runs([g for panel in over_bytes for g in panel]),
        )
    behind = regret.regrets(groups)
    if behind:
        yield _figure(
            "regret",
            "Regret",
            "A point a condition: how far a loss stays behind the best loss there. The "
            "line ends at the largest, the bar is the mean; grey is within "
            f"{regret.CLOSE:g} points. Linear to 2, then logarithmic.",
            regret.figure(behind, losses),
            regret.data(behind, groups),
        )
    over_networks = matrix.matrices(groups)
    if over_networks:
        yield _figure(
            "cross_architecture",
            "Across architectures",
            "Mean accuracy in percent after the last epoch, and below it the drop from "
            "the diagonal in points: minus that of the network of the images.",
            matrix.figure(over_networks),
            matrix.data(over_networks),
        )
    cells = [list(m.cells.values()) for m in over_networks]
    points = (*over_ipc, *over_bytes, *cells)
    shown = {g.of(BENCHMARK) for panel in points for g in panel}
    benchmarks = collections.defaultdict(list)
    for g in groups:
        benchmarks[g.of(BENCHMARK)].append(g)
    names = [name for name in distinguishing(groups) if name not in OPTIMIZER]
    for number, (benchmark, members) in enumerate(benchmarks.items(), start=1):
        suffix = f"_{number}" if len(benchmarks) > 1 else ""
        settings = [f"{heading(n)} {setting_text(members[0], n)}" for n in names]
        where = f": {', '.join(settings)}" if names else ""
        found = list(_over_learning_rates(members, losses, choices))
        if benchmark not in shown or len({g.of(OPTIMIZER) for g in members}) > 1:
            found = [*_accuracies(members, losses), *found]
            found += _over_epochs(members, losses, curves)
            found += _measurements(members, losses, curves)
        for one in found:
            yield one._replace(name=one.name + suffix, heading=one.heading + where)
    with_grids = [images for images in examples if images.grid is not None]
    if len(with_grids) > 1:
        yield _figure(
            "distilled",
            "Distilled images side by side",
            "A row a class, the first ten, and the first five images of each.",
            plots.side_by_side(with_grids),
            [["distilled dataset"], *([images.name] for images in with_grids)],
        )
    for images in examples:
        yield _figure(
            f"distilled_{images.name}",
            f"Distilled images and soft labels: {images.name}",
            _examples_caption(images),
            plots.images(images),
            figure_data.of_examples(images),
        )


def _accuracies(members: Sequence[Group], losses: Sequence[str]) -> Iterator[Figure]:
    yield _figure(
        "accuracy",
        "Accuracy",
        "Mean over seeds after the last epoch; points are the single seeds, whiskers "
        "the 95% t-interval of the mean. With an optimizer stands its learning rate.",
        plots.bars(members, losses),
        figure_data.of_runs(members),
    )
    compared = [g for g in members if g.difference.mean is not None]
    if compared:
        yield _figure(
            "differences",
            "Paired differences",
            "Paired over seeds, with 95% t-intervals. Filled where the interval "
            "excludes zero and no run of either diverged; no interval where there is "
            "one pair.",
            plots.differences(compared, losses),
            figure_data.of_differences(compared),
        )


def _over_learning_rates(
    members: Sequence[Group], losses: Sequence[str], choices: Sequence[Row]
) -> Iterator[Figure]:
    """Learning rates, on held-out images where they were tuned, else on test images."""
    name, head = "learning_rates", "Accuracy over learning rate"
    of_all = (*OPTIMIZER, "loss", "loss_code")
    here = [c for c in choices if is_for(c, members[0].settings, of_all)]
    chosen = [c for c in here if c["loss"] in losses]
    rates = collections.defaultdict(set)
    for g in members:
        rates[g.setting("optimizer"), g.loss].add(g.settings["learning_rate"])
    several = [g for g in members if len(rates[g.setting("optimizer"), g.loss]) > 1]
    if chosen:
        caption = (
            "On images held out from the training data, mean over seeds after the last "
            f"epoch; {_APART}. A ring is around the rate that was chosen, a dotted "
            f"line at the default. {_CROSSES}"
        )
        yield _figure(
            name,
            head,
            caption,
            lines.held_out_learning_rates(chosen, losses),
            figure_data.of_choices(chosen),
        )
    elif several:
        caption = f"{_WHISKERS}, on the test split; {_APART}. {_CROSSES}"
        drawing = lines.learning_rates(several, losses)
        yield _figure(name, head, caption, drawing, figure_data.of_runs(several))


def _over_epochs(
    members: Sequence[Group], losses: Sequence[str], curves: lines.Curves
) -> Iterator[Figure]:
    of_group = {g: lines.of_runs(g.rows, curves) for g in _without_repeats(members)}
    drawn = [g for g, found in of_group.items() if found]
    if drawn:
        yield _figure(
            "learning_curves",
            "Learning curves",
            f"M{_RANGE}in a cross.",
            lines.learning_curves(drawn, curves, losses),
            figure_data.of_curves(drawn, curves, "train", "test"),
        )
    with_norms = [g for g in drawn if any(len(c.gradient) for c in of_group[g])]
    if with_norms:
        yield _figure(
            "gradient_norms",
            "Gradient norms through training",
            "Global norm of the gradient of the loss, mean over the steps of an epoch; "
            f"m{_RANGE}in a cross.",
            lines.gradient_norms(with_norms, curves, losses),
            figure_data.of_curves(with_norms, curves, "gradient"),
        )


def _measurements(
    members: Sequence[Group], losses: Sequence[str], curves: lines.Curves
) -> Iterator[Figure]:
    """One figure per optimizer."""
    labels = style.optimizer_labels(members)
    found = measurements.by_optimizer(_without_repeats(members), curves)
    for number, (optimizer, some) in enumerate(found.items(), start=1):
        yield _figure(
            "measurements" + f"_{number}" * (len(found) > 1),
            f"Measurements under {' '.join(labels[optimizer].split())}",
            "On the test split at every evaluation, mean and range over the finished "
            f"runs. {measurements.meaning(some)}",
            measurements.figure(some, curves, losses),
            measurements.data(some, curves),
        )


def _without_repeats(members: Sequence[Group]) -> list[Group]:
    """All but the tuned optimizers whose learning rates are all the default."""
    at_default = {g.key for g in members if g.rate == DEFAULT}
    differ = {g.of(OPTIMIZER) for g in members if g.key not in at_default}
    return [g for g in members if g.rate != TUNED or g.of(OPTIMIZER) in differ]


def _examples_caption(shown: Examples) -> str:
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
        "logits of that view, at temperature 1. The hard label is hatched."
    )
