"""What a job takes, as text."""

import math
from collections.abc import Iterator

import jax

from gift_jax.plan.stages import Workload
from gift_jax.soft_labels.relabel import readable_time
from gift_jax.soft_labels.storage import readable_size
from gift_jax.specs import NetworkSpec
from gift_jax.teachers.flax_teacher import variable_shapes


def report(work: Workload, *, utilization: float, least_step: float = 0.0) -> str:
    """What a job takes on a machine, as text; assumptions as of `Stage.seconds`.

    Raises:
      InputError: a dataset of unknown size, or a batch size that does not divide.
    """
    parts = (_description(work), _stages(work, utilization, least_step), _memory(work))
    return "\n\n".join("\n".join(part) for part in parts)


def _description(work: Workload) -> Iterator[str]:
    spec, info, relabel = work.spec, work.info, work.spec.relabel
    height, width, channels = work.info.image_shape
    yield f"machine     {work.machine.name}: {work.machine.devices} devices"
    yield (
        f"dataset     {info.name}: {info.num_classes:,} classes, "
        f"{height}x{width}x{channels}, {work.real_images['test']:,} test images"
    )
    if spec.needs_teacher:
        for teacher in spec.teacher.members:
            shown = _network(teacher.network, work) if teacher.network else teacher.name
            yield f"teacher     {shown}"
    for network in work.trainings:
        yield f"student     {_network(network, work)}"
    yield (
        f"distilled   {spec.distilled.name}, IPC {spec.distilled.ipc}: "
        f"{work.distilled_images:,} images, {spec.views:,} views"
    )
    stored = f"{readable_size(work.soft_label_bytes)} in {relabel.format}"
    is_stored = work.soft_label_bytes > 0
    yield f"soft labels {stored if is_stored else f'none on disk ({relabel.source})'}"


def _network(network: NetworkSpec, work: Workload) -> str:
    params = variable_shapes(network.build(work.info), work.info.image_shape)["params"]
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    return f"{network.label}: {count:,} parameters, {network.dtype}"


def _stages(work: Workload, utilization: float, least_step: float) -> Iterator[str]:
    columns = "{:38}{:>8}{:>12}{:>9}{:>13}{:>12}{:>10}"
    yield columns.format(
        "stage", "devices", "images/step", "steps", "GFLOP/step", "PFLOP", "time"
    )
    total = 0.0
    for stage in work.stages():
        seconds = stage.seconds(utilization=utilization, least_step=least_step)
        total += seconds
        yield columns.format(
            stage.name,
            stage.devices,
            f"{stage.images:,}",
            f"{stage.steps:,}",
            f"{stage.flops / 1e9:,.1f}",
            f"{stage.total_flops / 1e15:,.3g}",
            readable_time(seconds),
        )
    for what in work.left_out():
        yield f"not counted, as it is not known what it does: {what}"
    peak = work.machine.chip.peak[next(iter(work.trainings)).dtype] / 1e12
    yield (
        f"{readable_time(total)} in all: an estimate, assuming {utilization:.0%} of "
        f"{peak:,.0f} TFLOP/s a device, and {1e3 * least_step:g} ms a step at least"
    )


def _memory(work: Workload) -> Iterator[str]:
    available, resident = int(work.machine.chip.memory), work.resident_bytes
    several = f", one of {work.at_once} at once" if work.at_once > 1 else ""
    for network in work.trainings:
        arguments, working = work.student_training(network).memory()
        needed = arguments + working + resident
        yield f"memory of a device while {network.label} trains{several}"
        for size, what in (
            (arguments, "state, distilled images, soft labels"),
            (working, f"step, compiled for {jax.default_backend()}"),
            (resident, "its part of the test images"),
            (needed, f"{needed / available:.0%} of {readable_size(available)}"),
        ):
            yield f"  {readable_size(size):>9}  {what}"
