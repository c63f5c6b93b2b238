"""What a config takes: `python -m gift_jax.plan --config=configs/imagenet1k.py`.

Operations, memory, bytes of soft labels and time, before anything is run. No dataset,
checkpoint or accelerator is needed.

    python -m gift_jax.plan --config=configs/imagenet1k_resnet18.py --device=v4-8
    python -m gift_jax.plan --config=configs/cifar10.py:ipc=50 \\
        --devices=4 --peak_tflops=125 --memory_gb=16

Times rest on two assumptions: what share of their peak the devices reach in large steps
(`--utilization`), and what time small ones take in which they mostly launch kernels and
wait for one another (`--least_step_ms`). Reading images, compiling and the host's work
come on top. Steps are those of single students, of which several can train at once.

The memory of a step is what the compiler for the devices here plans, which is more on
CPUs (models/cpu/). Of GPU memory JAX takes three quarters unless told otherwise.
"""

import math
import sys
from collections.abc import Iterator, Sequence

import jax
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from gift_jax import configs, specs
from gift_jax.plan import cost_model
from gift_jax.plan.stages import Workload
from gift_jax.runtime import errors
from gift_jax.soft_labels.relabel import readable_time
from gift_jax.soft_labels.storage import readable_size
from gift_jax.specs import NetworkSpec
from gift_jax.teachers.flax_teacher import variable_shapes

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file, or gift_jax:NAME, with its options behind a colon."
)
_DEVICE = flags.DEFINE_string("device", "v4-8", "Such as v4-8, v5e-64 or 8xh100.")
_DEVICES = flags.DEFINE_integer(
    "devices", None, "Number of devices of another kind, instead of --device."
)
_HOSTS = flags.DEFINE_integer("hosts", 1, "Number of hosts that these are in.")
_PEAK = flags.DEFINE_float("peak_tflops", None, "Peak of one of these in TFLOP/s.")
_MEMORY = flags.DEFINE_float("memory_gb", None, "Memory of one of these in GB.")
_UTILIZATION = flags.DEFINE_float(
    "utilization", 0.3, "Share of the peak that is reached; an assumption.", 0.0, 1.0
)
_LEAST_STEP = flags.DEFINE_float(
    "least_step_ms", 1.0, "Shortest time of a step in ms; an assumption.", 0.0
)
flags.mark_flags_as_required(["config"])


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


def _machine() -> cost_model.Machine:
    if _DEVICES.value is None:
        return cost_model.machine(_DEVICE.value)
    if _PEAK.value is None or _MEMORY.value is None:
        raise errors.InputError("--devices needs --peak_tflops and --memory_gb")
    return cost_model.other_machine(
        devices=_DEVICES.value,
        hosts=_HOSTS.value,
        peak=_PEAK.value * 1e12,
        memory=_MEMORY.value * cost_model.GB,
    )


def main(argv: Sequence[str]) -> int:
    """Prints the plan of every job of a grid."""
    del argv
    absl_logging.set_verbosity(absl_logging.ERROR)  # JAX tells what it did not find
    try:
        machine = _machine()
        for number, spec in enumerate(specs.expand(_CONFIG.value)):
            text = report(
                Workload(spec, machine),
                utilization=_UTILIZATION.value,
                least_step=_LEAST_STEP.value / 1e3,
            )
            print("\n" * (number > 0) + text)
    except errors.EXPECTED as error:
        print(f"error: {errors.message(error)}", file=sys.stderr)
        return 1
    return 0


def _parse_flags(argv: Sequence[str]) -> list[str]:
    try:
        return app.parse_flags_with_usage([configs.with_path(a) for a in argv])
    except flags.Error as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)
