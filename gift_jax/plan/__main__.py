"""What a config takes: `python -m gift_jax.plan --config=configs/imagenet1k.py`.

Operations, memory, bytes of soft labels and time, before anything is run. No dataset,
checkpoint or accelerator is needed.

    python -m gift_jax.plan --config=configs/imagenet1k_resnet18.py --device=v4-8
    python -m gift_jax.plan --config=configs/cifar10.py:ipc=50 \\
        --devices=4 --peak_tflops=125 --memory_gb=16

Times rest on two assumptions: what share of their peak the devices reach in large steps
(`--utilization`), and what time small ones take in which they mostly launch kernels and
wait for one another (`--least_step_ms`). Reading images, compiling and the host's work
come on top.

The memory of a step is what the compiler for the devices here plans. On a CPU that is
more than on others, whose gradients of convolutions take less (models/convolution.py).
Of GPU memory JAX takes three quarters unless told otherwise.
"""

import itertools
import math
import sys
from collections.abc import Iterator, Sequence

import jax
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from gift_jax.plan import cost_model, stage_costs, workload
from gift_jax.runtime import errors
from gift_jax.soft_labels import storage
from gift_jax.specs import settings
from gift_jax.teachers import teacher

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "File of the config, with its options behind a colon."
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


def report(
    work: workload.Workload, *, utilization: float, least_step: float = 0.0
) -> str:
    """What a config takes on a machine, as text.

    Args:
      work: Config and machine.
      utilization: Share of the peak that is assumed to be reached.
      least_step: Seconds that even the smallest step is assumed to take.

    Raises:
      ValueError: a dataset of unknown size, or a batch size that does not divide.
    """
    stages = _stages(work, utilization, least_step)
    lines = itertools.chain(_description(work), [""], stages, [""], _memory(work))
    return "\n".join(lines)


def _description(work: workload.Workload) -> Iterator[str]:
    config, info, machine = work.config, work.info, work.machine
    row = "{:12}{}".format
    yield row("machine", f"{machine.name}: {machine.devices} devices")
    height, width, channels = work.image_shape
    yield row(
        "dataset",
        f"{info.name}: {info.num_classes:,} classes, {height}x{width}x{channels}, "
        f"{work.test_images:,} test images",
    )
    yield row("teacher", _network(config.teacher, work.teacher.name, work))
    for name in work.trainings:
        yield row("student", _network(config.student, name, work))
    yield row(
        "distilled",
        f"{config.distilled.name}, IPC {config.distilled.ipc}: "
        f"{work.distilled_images:,} images, {settings.views(config):,} views",
    )
    stored, source = work.soft_label_bytes, config.relabel.source
    size = f"{storage.readable_size(stored)} in {config.relabel.format}"
    yield row("soft labels", size if stored else f"none on disk ({source})")


def _network(section: settings.Config, name: str, work: workload.Workload) -> str:
    model = settings.network(section, name, work.info)
    params = teacher.variable_shapes(model, work.image_shape)["params"]
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    return f"{name}: {count:,} parameters, {section.dtype}"


def _stages(
    work: workload.Workload, utilization: float, least_step: float
) -> Iterator[str]:
    columns = "{:38}{:>8}{:>12}{:>9}{:>13}{:>12}{:>10}"
    yield columns.format(
        "stage", "devices", "images/step", "steps", "GFLOP/step", "PFLOP", "time"
    )
    total = 0.0
    for stage in stage_costs.stages(work):
        seconds = stage.seconds(utilization=utilization, least_step=least_step)
        total += seconds
        yield columns.format(
            stage.name,
            stage.devices,
            f"{stage.images:,}",
            f"{stage.steps:,}",
            f"{stage.flops / 1e9:,.1f}",
            f"{stage.total_flops / 1e15:,.3g}",
            _duration(seconds),
        )
    peak = work.machine.chip.peak[work.config.student.dtype] / 1e12
    yield (
        f"{_duration(total)} in all: an estimate, assuming {utilization:.0%} of "
        f"{peak:,.0f} TFLOP/s a device, and {1e3 * least_step:g} ms a step at least"
    )


def _memory(work: workload.Workload) -> Iterator[str]:
    size = storage.readable_size
    available = int(work.machine.chip.memory)
    for network in work.trainings:
        memory = stage_costs.memory(work, network)
        needed = memory.arguments + memory.working + work.resident_bytes
        yield f"memory of a device while {network} trains"
        yield f"  {size(memory.arguments):>9}  state, distilled images, soft labels"
        yield f"  {size(memory.working):>9}  step, compiled for {jax.default_backend()}"
        yield f"  {size(work.resident_bytes):>9}  its part of the test images"
        yield f"  {size(needed):>9}  {needed / available:.0%} of {size(available)}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def _machine() -> cost_model.Machine:
    if _DEVICES.value is None:
        return cost_model.machine(_DEVICE.value)
    if _PEAK.value is None or _MEMORY.value is None:
        raise ValueError("--devices needs --peak_tflops and --memory_gb")
    return cost_model.other_machine(
        devices=_DEVICES.value,
        hosts=_HOSTS.value,
        peak=_PEAK.value * 1e12,
        memory=_MEMORY.value * cost_model.GB,
    )


def main(argv: Sequence[str]) -> int:
    """Prints the plan of every config of a grid."""
    del argv
    absl_logging.set_verbosity(absl_logging.ERROR)  # JAX tells what it did not find
    try:
        machine = _machine()
        for number, config in enumerate(settings.expand(_CONFIG.value)):
            work = workload.Workload(config, machine)
            text = report(
                work,
                utilization=_UTILIZATION.value,
                least_step=_LEAST_STEP.value / 1e3,
            )
            print("\n" * (number > 0) + text)
    except errors.EXPECTED as error:
        print(f"error: {errors.message(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    app.run(main)
