"""What devices can do, and what steps cost them by XLA's own count.

Steps are lowered for abstract arrays: nothing is allocated or computed.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from gift_jax import registry
from gift_jax.runtime.devices import AXIS
from gift_jax.runtime.errors import InputError

GB = 10**9


@dataclasses.dataclass(frozen=True)
class Chip:
    """An accelerator, which JAX shows as one device."""

    platform: str  # as XLA names it
    peak: dict[str, float]  # dense FLOP/s by the type of activations
    memory: float  # bytes
    host_chips: int  # most per host where there are several hosts


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
    """Chips of one kind, as many in each host."""

    name: str
    chip: Chip
    hosts: int
    devices: int

    @property
    def places(self) -> dict[str, int]:
        """Devices of each host, and how many hosts there are."""
        return {"local_devices": self.host_devices, "num_hosts": self.hosts}

    @property
    def host_devices(self) -> int:
        """Devices of each host."""
        return self.devices // self.hosts


def machine(name: str) -> Machine:
    """A machine by its usual name: v4-8 (of 4 chips), v5e-64, 8xh100.

    Raises:
      InputError: an unknown name.

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
        known = ("v4-8", "v5e-64", "8xh100")
        others = " or other numbers, or give --devices, --peak_tflops and --memory_gb"
        raise registry.unknown_name("device", name, known, or_else=others)
    chip = CHIPS[kind]
    alone = _V5E_SINGLE_HOST if kind == "v5e" else chip.host_chips
    hosts = 1 if devices <= alone else -(-devices // chip.host_chips)
    return Machine(name, chip, hosts, devices)


def other_machine(*, devices: int, hosts: int, peak: float, memory: float) -> Machine:
    """A machine of chips that are not in `CHIPS`, with one peak for all types.

    Raises:
      InputError: the hosts do not have equally many devices.
    """
    if devices < 1 or hosts < 1 or devices % hosts:
        raise InputError(f"{devices} devices are not as many in each of {hosts} hosts")
    chip = Chip("cuda", {"bfloat16": peak, "float32": peak}, memory, devices // hosts)
    return Machine(f"{peak / 1e12:g} TFLOP/s each", chip, hosts, devices)


@dataclasses.dataclass(frozen=True)
class Stage:
    """One part of a job: equal steps on devices of a machine.

    Attributes:
      name: What the stage does.
      step: One device's share; runs under a mapped axis named "batch".
      arguments: Shapes of its arguments; the last is this device's share.
      steps: Number of steps.
      per_device: Images per device in a step.
      devices: Number of devices that it runs on.
      dtype: Type of the activations.
      machine: The machine that has the devices.
      saved: Work, in steps, that is saved by steps with fewer images.
      times: How often the stage is done; `steps` are those of all times.
      program: Name of the compiled program; stages that share one differ in the number
        of images.
      is_donated: Whether a step writes over the first argument.
      whole: Arguments of a step where `arguments` are those of one turn of its loop:
        XLA counts the operations of a loop's body once, whatever its turns.
      at_once: How many run on a device at once, each with a first argument of its own.
      resident: Bytes of everything else that stays on a device meanwhile.
    """

    name: str
    step: Callable[..., Any]
    arguments: tuple[Any, ...]
    steps: int
    per_device: int
    devices: int
    dtype: str
    machine: Machine
    saved: float = 0.0
    times: int = 1
    program: str = ""
    is_donated: bool = True
    whole: tuple[Any, ...] | None = None
    at_once: int = 1
    resident: int = 0

    def repeated(self, times: int) -> "Stage":
        """The same stage, done `times` times."""
        steps, saved = times * self.steps, times * self.saved
        return dataclasses.replace(
            self, steps=steps, saved=saved, times=times * self.times
        )

    @property
    def images(self) -> int:
        """Images in a step, over all devices."""
        return self.per_device * self.devices

    @functools.cached_property
    def flops(self) -> float:
        """Floating point operations of a step, over all devices.

        XLA counts two for a multiply-add, and none where a convolution meets padding:
        at 32x32 pixels a tenth less than the textbook's count.
        """
        platform = self.machine.chip.platform  # need not be present
        traced = self._traced(self.arguments)
        lowered = traced.lower(lowering_platforms=(platform,))
        return self.devices * float(lowered.cost_analysis()["flops"])

    @property
    def total_flops(self) -> float:
        """Floating point operations of all steps."""
        return self.flops * (self.steps - self.saved)

    def seconds(self, *, utilization: float, least_step: float) -> float:
        """Time on the devices.

        Args:
          utilization: Share of their peak that is reached.
          least_step: Seconds that even the smallest step takes.
        """
        peak = self.devices * self.machine.chip.peak[self.dtype]
        computing = self.total_flops / (peak * utilization)
        return max(computing, self.steps * least_step)

    @functools.cached_property
    def memory(self) -> tuple[int, int]:
        """Bytes of the arguments, and of all else that a step needs, on a device.

        As the compiler for the devices here plans it.
        """
        arguments = self.whole or self.arguments
        donated = {"donate_argnums": 0} if self.is_donated else {}
        compiled = self._traced(arguments, **donated).lower().compile()
        stats = compiled.memory_analysis()
        made = stats.output_size_in_bytes - stats.alias_size_in_bytes
        others = (self.at_once - 1) * tree_bytes(arguments[0])
        return (
            stats.argument_size_in_bytes + others,
            self.at_once * (stats.temp_size_in_bytes + made),
        )

    @property
    def needed_memory(self) -> int:
        """Bytes on a device in all."""
        return sum(self.memory) + self.resident

    def _traced(self, arguments: tuple[Any, ...], **options: Any) -> Any:
        spec = jax.sharding.PartitionSpec
        mapped = jax.shard_map(
            self.step,
            mesh=jax.sharding.Mesh(np.asarray(jax.local_devices()[:1]), (AXIS,)),
            in_specs=(*[spec()] * (len(arguments) - 1), spec(AXIS)),
            out_specs=spec(),
            check_vma=False,
        )
        return jax.jit(mapped, **options).trace(*arguments)


def tree_bytes(shapes: Any) -> int:
    """Bytes of the arrays of a tree, or of what stands for them."""
    leaves = [leaf for leaf in jax.tree.leaves(shapes) if not _is_key(leaf)]
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def largest(stages: Iterable[Stage]) -> Stage:
    """The stage that needs most memory of a device.

    Of the stages of one program, only the one with most images is compiled.
    """
    found: dict[str, Stage] = {}

    def size(stage: Stage) -> tuple[int, int]:
        return stage.per_device, tree_bytes(stage.arguments)

    for stage in stages:
        program = stage.program or stage.name
        found[program] = max(found.get(program, stage), stage, key=size)
    return max(found.values(), key=lambda stage: stage.needed_memory)
