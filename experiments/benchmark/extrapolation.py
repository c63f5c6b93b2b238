"""What a recovery on ImageNet-1k would take at a rate that was measured on CIFAR-10.

Operations of an iteration are those that `gift_jax.plan` counts, for both networks.
"""

from collections.abc import Mapping
from typing import NamedTuple

from ml_collections import ConfigDict

from gift_jax import specs
from gift_jax.configs import cifar10, imagenet1k_resnet18
from gift_jax.plan import cost_model, grid

IPC = 10
OPTIONS = f"distill=sre2l,ipc={IPC}"
# https://github.com/VILA-Lab/SRe2L/blob/main/CDA/README.md: ResNet-18, batch 100, 4,000
# iterations on one RTX 4090.
OFFICIAL_HOURS, OFFICIAL_IPC = 29, 50


class Recovery(NamedTuple):
    """Counted operations of one iteration, and iterations of all batches."""

    flops: float
    iterations: int


def measured() -> Recovery:
    """What is timed: 100 images of CIFAR-10, ConvNet-3."""
    return _count(cifar10.get_config(OPTIONS))


def target() -> Recovery:
    """ImageNet-1k, IPC 10, ResNet-18."""
    return _count(imagenet1k_resnet18.get_config(OPTIONS))


def _count(config: ConfigDict) -> Recovery:
    # One device of any speed: only operations are asked for.
    machine = cost_model.other_machine(devices=1, hosts=1, peak=1e12, memory=1e9)
    (plan,) = grid.plans(specs.expand(config), machine)
    (recovery,) = [s for s in plan.stages if s.name == "recovery (sre2l)"]
    return Recovery(recovery.flops, recovery.steps)


def text(seconds: Mapping[str, float]) -> str:
    """The extrapolation as Markdown.

    Args:
        seconds: Seconds of one iteration as `measured` counts it, by contender.
    """
    here, there = measured(), target()
    whole = there.flops * there.iterations
    rows = [
        f"| {name} | {here.flops / taken / 1e9:.1f} | "
        f"{whole * taken / here.flops / 86400:.1f} |"
        for name, taken in seconds.items()
    ]
    of_ipc = OFFICIAL_IPC / IPC
    official = whole * of_ipc / (OFFICIAL_HOURS * 3600)
    return (
        f"**Extrapolated, not measured.** ImageNet-1k at IPC {IPC} (ResNet-18, 224 "
        f"pixels, batches of 100 images) is {there.iterations:,} iterations of "
        f"{there.flops / 1e9:,.1f} GFLOP, {whole / 1e15:,.0f} PFLOP by the count of "
        f"`gift_jax.plan`; an iteration above is {here.flops / 1e9:.1f} GFLOP. If the "
        "rate on this machine stayed as above:\n\n"
        "| | GFLOP/s above | days on this machine |\n|---|---|---|\n"
        + "\n".join(rows)
        + f"\n\nThe {OFFICIAL_HOURS} h that CDA's README states for IPC {OFFICIAL_IPC} "
        "on one RTX 4090 (SRe2L's procedure in PyTorch, with other crops) are "
        f"{official / 1e12:.1f} TFLOP/s by the same count, "
        f"{OFFICIAL_HOURS / of_ipc:.1f} h for IPC {IPC}."
    )
