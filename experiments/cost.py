"""What a training step costs with each loss, in time and in memory.

    python -m experiments.cost [--out=DIR] [--rounds=N]

All losses run in turn, round after round, on the same stored soft labels; times are
compared within a round. Memory is what XLA sets aside for a step.
"""

import argparse
import json
import pathlib

import numpy as np

from experiments.benchmark import measure, ours, report
from experiments.benchmark.rounds import Samples
from experiments.benchmark.workloads import WORKLOADS
from gift_jax import losses
from gift_jax.runtime.progress import ProgressBar

WORKLOAD = WORKLOADS["ConvNet-3, 32x32, batch 50"]
BASE = "ce"


def main() -> None:
    """Writes cost.md and cost.json."""
    parser = argparse.ArgumentParser(prog="python -m experiments.cost")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("cost"))
    parser.add_argument("--rounds", type=int, default=50)
    arguments = parser.parse_args()
    contenders = [measure.Contender(n, "ours", n) for n in losses.LOSS_NAMES]
    with (
        measure.Workers(pytorch=False) as processes,
        ProgressBar("cost", total=arguments.rounds, unit="round") as bar,
    ):
        samples = measure.steps_in_turn(
            processes,
            contenders,
            WORKLOAD,
            rounds=arguments.rounds,
            on_round=lambda: bar.update(1),
        )
    memory = {name: ours.memory_bytes(WORKLOAD, name) for name in samples}
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = {"machine": report.machine(), "seconds": samples, "bytes": memory}
    (arguments.out / "cost.json").write_text(json.dumps(results, indent=1))
    text = table(samples, memory)
    (arguments.out / "cost.md").write_text(text)
    print(text)


def table(samples: Samples, memory: dict[str, int]) -> str:
    """Losses with their medians, and quartiles of the ratio to cross-entropy."""
    rows = [
        f"{WORKLOAD.name}; medians, quartiles in brackets\n",
        "| Loss | ms per step | over cross-entropy | MB of XLA |",
        "|---|---|---|---|",
    ]
    for name, seconds in samples.items():
        low, middle, high = report.quartiles(list(np.divide(seconds, samples[BASE])))
        rows.append(
            f"| {name} | {1e3 * np.median(seconds):.1f} | "
            f"{middle:.4f} [{low:.4f}, {high:.4f}] | {memory[name] / 1e6:.1f} |"
        )
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
