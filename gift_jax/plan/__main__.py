"""What a config takes: `python -m gift_jax.plan --config=configs/imagenet1k.py`.

Operations, memory, disk and time, before anything is run. No checkpoint or accelerator
is needed, and no dataset that is known by its name; one of your own is opened for its
size. What several jobs of a grid need is counted in the first of them.

    python -m gift_jax.plan --config=configs/imagenet1k_resnet18.py --device=v4-8
    python -m gift_jax.plan --config=configs/cifar10.py:ipc=50 \\
        --devices=4 --peak_tflops=125 --memory_gb=16

Times rest on two assumptions: what share of their peak the devices reach in large steps
(`--utilization`), and what time small ones take in which they mostly launch kernels and
wait for one another (`--least_step_ms`). Reading images, compiling and the host's work
come on top. Steps are those of single students, of which several can train at once.

Memory is that of the stage that needs most of a device: what the compiler for the
devices here plans for a step, which is more on CPUs (models/cpu/). Of GPU memory JAX
takes three quarters unless told otherwise.
"""

import sys
from collections.abc import Sequence

from absl import app, flags
from absl import logging as absl_logging

from gift_jax import configs, specs
from gift_jax.plan import cost_model, grid
from gift_jax.plan.grid import Plan
from gift_jax.plan.text import report, total
from gift_jax.runtime import errors
from gift_jax.specs import options

_LEAST = 1e-6  # least value of flags that are divided by
_CONFIG = configs.define_flag()
_DEVICE = flags.DEFINE_string("device", "v4-8", "Such as v4-8, v5e-64 or 8xh100.")
_DEVICES = flags.DEFINE_integer(
    "devices", None, "Number of devices of another kind, instead of --device."
)
_HOSTS = flags.DEFINE_integer("hosts", 1, "Number of hosts that these are in.")
_PEAK = flags.DEFINE_float(
    "peak_tflops", None, "Peak of one of these in TFLOP/s.", _LEAST
)
_MEMORY = flags.DEFINE_float("memory_gb", None, "Memory of one of these in GB.", _LEAST)
_UTILIZATION = flags.DEFINE_float(
    "utilization", 0.3, "Share of the peak that is reached; an assumption.", _LEAST, 1.0
)
_LEAST_STEP = flags.DEFINE_float(
    "least_step_ms", 1.0, "Shortest time of a step in ms; an assumption.", 0.0
)
flags.mark_flags_as_required(["config"])


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
    """Prints the plan of every job of a grid, and their sum."""
    del argv
    absl_logging.set_verbosity(absl_logging.ERROR)  # JAX tells what it did not find
    try:
        machine, config = _machine(), _CONFIG.value
        options.with_flags(config, configs.given(_CONFIG))
        assumed = {
            "utilization": _UTILIZATION.value,
            "least_step": _LEAST_STEP.value / 1e3,
        }
        plans: list[Plan] = []
        for plan in grid.plans(specs.expand(config), machine):
            print("\n" * bool(plans) + report(plan, **assumed), flush=True)
            plans.append(plan)
        if len(plans) > 1:
            print("\n" + total(plans, **assumed))
    except errors.EXPECTED as error:
        print(f"error: {errors.message(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    app.run(main, flags_parser=configs.parse_flags)
