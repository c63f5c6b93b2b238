"""What a job takes, as text."""

import math
from collections.abc import Callable, Iterator, Sequence

import jax

from gift_jax.plan.cost_model import Stage, largest
from gift_jax.plan.grid import Plan
from gift_jax.plan.workload import Workload
from gift_jax.runtime.units import readable_size, readable_time
from gift_jax.specs import NetworkSpec
from gift_jax.teachers.flax_teacher import variable_shapes


def report(plan: Plan, *, utilization: float, least_step: float = 0.0) -> str:
    """What a job takes on a machine, as text; see `Stage.seconds` for assumptions.

    Raises:
      InputError: an unknown dataset, or a batch size that does not divide.
    """
    parts = (
        _description(plan),
        _stages(plan, utilization, least_step),
        _disk(plan.disk),
        _memory(plan),
    )
    return "\n\n".join("\n".join(part) for part in parts)


def total(plans: Sequence[Plan], *, utilization: float, least_step: float = 0.0) -> str:
    """Time and disk of all jobs of a grid, as text."""
    seconds = sum(
        stage.seconds(utilization=utilization, least_step=least_step)
        for plan in plans
        for stage in plan.stages
    )
    size = sum(sum(plan.disk.values()) for plan in plans)
    return (
        f"{len(plans)} plans: {readable_time(seconds)} and at most "
        f"{readable_size(size)} on disk in all"
    )


def _description(plan: Plan) -> Iterator[str]:
    work = plan.work
    spec, info = work.spec, work.real.info
    height, width, channels = info.image_shape
    yield f"machine     {work.machine.name}: {work.machine.devices} devices"
    yield (
        f"dataset     {info.name}: {info.num_classes:,} classes, "
        f"{height}x{width}x{channels}, {work.real.images['test']:,} test images"
    )
    if spec.needs_teacher:
        for teacher in spec.teacher.members:
            shown = _network(teacher.network, work) if teacher.network else teacher.name
            yield f"teacher     {shown}"
    for network in work.trainings:
        yield f"student     {_network(network, work)}"
    yield (
        f"distilled   {spec.distilled.name}, IPC {spec.distilled.ipc}: "
        f"{info.num_classes * spec.distilled.ipc:,} images, {spec.views:,} views, "
        f"labels: {spec.relabel.source}"
    )
    if spec.continual:
        yield (
            f"continual   {spec.continual.steps} steps, orders of classes: "
            f"{plan.orders}, labels: {', '.join(plan.teachers)}"
        )


def _network(network: NetworkSpec, work: Workload) -> str:
    info = work.real.info
    params = variable_shapes(network.build(info), info.image_shape)["params"]
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    return f"{network.label}: {count:,} parameters, {network.dtype}"


def _stages(plan: Plan, utilization: float, least_step: float) -> Iterator[str]:
    columns = "{:46}{:>8}{:>14}{:>11}{:>14}{:>10}{:>10}"
    yield columns.format(
        "stage", "devices", "images/step", "steps", "GFLOP/step", "PFLOP", "time"
    )
    in_all = 0.0
    for same in _by_name(plan.stages):
        seconds = [
            s.seconds(utilization=utilization, least_step=least_step) for s in same
        ]
        in_all += sum(seconds)
        times = sum(stage.times for stage in same)
        yield columns.format(
            same[0].name + f", {times} times" * (times > 1),
            _span([stage.devices for stage in same], "{:,}".format),
            _span([stage.images for stage in same], "{:,}".format),
            f"{sum(stage.steps for stage in same):,}",
            _span([stage.flops / 1e9 for stage in same], "{:,.1f}".format),
            f"{sum(stage.total_flops for stage in same) / 1e15:,.3g}",
            readable_time(sum(seconds)),
        )
    if plan.found:
        yield f"made by a plan above: {', '.join(plan.found)}"
    for what in plan.work.left_out():
        yield f"not counted, as it is not known what it does: {what}"
    network = next(iter(plan.work.trainings))
    peak = plan.work.machine.chip.peak[network.dtype] / 1e12
    yield (
        f"{readable_time(in_all)} in all: an estimate, assuming {utilization:.0%} of "
        f"{peak:,.0f} TFLOP/s a device, and {1e3 * least_step:g} ms a step at least"
    )


def _by_name(stages: Sequence[Stage]) -> list[list[Stage]]:
    found: dict[str, list[Stage]] = {}
    for stage in stages:
        found.setdefault(stage.name, []).append(stage)
    return list(found.values())


def _span(values: Sequence[float], shown: Callable[[float], str]) -> str:
    """The least and the most of some values, or the one."""
    return "-".join(dict.fromkeys([shown(min(values)), shown(max(values))]))


def _disk(sizes: dict[str, int]) -> Iterator[str]:
    yield "disk, before compression"
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        if size:
            yield f"  {readable_size(size):>9}  {name}"
    yield f"  {readable_size(sum(sizes.values())):>9}  in all"


def _memory(plan: Plan) -> Iterator[str]:
    """Memory of the stage that needs most of a device, and of the host in matching."""
    stage, available = largest(plan.stages), int(plan.work.machine.chip.memory)
    arguments, working = stage.memory
    several = f", {stage.at_once} at once" if stage.at_once > 1 else ""
    yield f"memory of a device, the most of all stages: {stage.name}{several}"
    share = f"{stage.needed_memory / available:.0%} of {readable_size(available)}"
    for size, what in (
        (arguments, "what it works on: weights and their optimizer, images, labels"),
        (working, f"step, compiled for {jax.default_backend()}"),
        (stage.resident, "what else stays there, such as its part of the test images"),
        (stage.needed_memory, share),
    ):
        yield f"  {readable_size(size):>9}  {what}"
    pixels = plan.work.distilled_images * math.prod(plan.work.real.info.image_shape)
    held = readable_size(4 * pixels)
    yield f"memory of every process on a host: {held} of distilled images as float32"
    if plan.work.host_bytes:
        kept = readable_size(plan.work.host_bytes)
        yield f"memory of the host in distillation: {kept} of train images"
