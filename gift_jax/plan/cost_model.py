"""What a step costs, by XLA's own count, and what devices can do.

Steps are lowered for abstract arrays: nothing is allocated or computed.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from gift_jax import registry
from gift_jax.runtime.devices import AXIS

GB = 10**9


@dataclasses.dataclass(frozen=True)
class Chip:
    """An accelerator, which JAX shows as one device.

    Attributes:
      platform: As XLA names it: "tpu", "cuda" or "cpu".
      peak: Dense FLOP/s by the type of activations, "bfloat16" and "float32".
      memory: Bytes.
      host_chips: Most chips in one host of several.
    """

    platform: str
    peak: dict[str, float]
    memory: float
    host_chips: int


# cloud.google.com/tpu/docs/v4 and /v5e; products of float32 are rounded to bfloat16 by
# XLA's default precision on TPUs. NVIDIA H100 datasheet, SXM, without sparsity;
# float32 is TF32, likewise XLA's default.
CHIPS = {
    "v4": Chip("tpu", {"bfloat16": 275e12, "float32": 275e12}, 32 * GB, 4),
    "v5e": Chip("tpu", {"bfloat16": 197e12, "float32": 197e12}, 16 * GB, 4),
    "h100": Chip("cuda", {"bfloat16": 989.4e12, "float32": 494.7e12}, 80 * GB, 8),
}
_V5E_SINGLE_HOST = 8


@dataclasses.dataclass(frozen=True)
class Machine:
    """Some chips of one kind.

    Attributes:
      name: For messages.
      chip: Their kind.
      hosts: How many hosts they are in, as many in each.
      devices: How many there are.
    """

    name: str
    chip: Chip
    hosts: int
    devices: int

    @property
    def host_devices(self) -> int:
        """Devices of each host."""
        return self.devices // self.hosts


def machine(name: str) -> Machine:
    """A machine by its usual name: v4-8 (of 4 chips), v5e-64, 8xh100.

    Raises:
      ValueError: an unknown name.

    >>> machine("v5e-64").hosts
    16
    """
    tpu = re.fullmatch(r"(v4|v5e)-([1-9]\d*)", name)
    gpu = re.fullmatch(r"([1-9]\d*)xh100", name)
    if tpu:
        kind = tpu[1]
        # TPU v4 are counted in TensorCores, of which a chip has two.
        devices = max(int(tpu[2]) // (2 if kind == "v4" else 1), 1)
    elif gpu:
        kind, devices = "h100", int(gpu[1])
    else:
        raise registry.unknown_name(
            "device",
            name,
            ("v4-8", "v5e-64", "8xh100"),
            or_else=" or others of these kinds, or give --devices, --peak_tflops and "
            "--memory_gb",
        )
    chip = CHIPS[kind]
    alone = _V5E_SINGLE_HOST if kind == "v5e" else chip.host_chips
    hosts = 1 if devices <= alone else -(-devices // chip.host_chips)
    return Machine(name, chip, hosts, devices)


def other_machine(*, devices: int, hosts: int, peak: float, memory: float) -> Machine:
    """A machine of chips that are not in `CHIPS`, of one peak for all types.

    Raises:
      ValueError: the devices are not as many in every host.
    """
    if devices < 1 or hosts < 1 or devices % hosts:
        raise ValueError(f"{devices} devices are not as many in each of {hosts} hosts")
    chip = Chip("cuda", {"bfloat16": peak, "float32": peak}, memory, devices // hosts)
    return Machine(f"{peak / 1e12:g} TFLOP/s each", chip, hosts, devices)


@dataclasses.dataclass(frozen=True)
class Memory:
    """What one device holds during a step, in bytes.

    Attributes:
      arguments: State, images and labels.
      working: All that is made during the step.
    """

    arguments: int
    working: int


def flops(step: Callable[..., Any], *arguments: Any, platform: str) -> float:
    """Floating point operations of one device's share of a step.

    XLA counts two for a multiply-add, and none where a convolution meets padding:
    at 32x32 pixels a tenth less than the textbook's count.

    Args:
      step: Runs under a mapped axis named "batch"; its last argument is this device's.
      *arguments: Shapes of its arguments.
      platform: What it is lowered for, "tpu", "cuda" or "cpu"; need not be there.
    """
    lowered = _traced(step, arguments).lower(lowering_platforms=(platform,))
    return float(lowered.cost_analysis()["flops"])


def memory(step: Callable[..., Any], *arguments: Any) -> Memory:
    """Memory of a step on a device, as the compiler for the devices here plans it.

    Args:
      step: As `flops`; its first argument is donated.
      *arguments: Shapes of its arguments.
    """
    stats = _traced(step, arguments, donate=0).lower().compile().memory_analysis()
    made = stats.output_size_in_bytes - stats.alias_size_in_bytes
    return Memory(stats.argument_size_in_bytes, stats.temp_size_in_bytes + made)


def _traced(
    step: Callable[..., Any], arguments: tuple[Any, ...], donate: int | None = None
) -> Any:
    everywhere, spread = jax.sharding.PartitionSpec(), jax.P(AXIS)
    mesh = jax.sharding.Mesh(np.asarray(jax.local_devices()[:1]), (AXIS,))
    mapped = jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(*[everywhere] * (len(arguments) - 1), spread),
        out_specs=everywhere,
        check_vma=False,
    )
    return jax.jit(mapped, donate_argnums=donate).trace(*arguments)
