"""What a training step costs with each loss, in time and in memory.

    python -m experiments.cost [--out=DIR] [--rounds=N] [--classes=10,100,1000] \\
        [--losses=gift,standardized_gift]

All losses run in turn, round after round, on the same stored soft labels; times are
compared within a round. Memory is what XLA sets aside for a step.
"""

import argparse
import json
import pathlib

import numpy as np

from experiments.benchmark import measure, ours, report, workloads
from experiments.benchmark.rounds import Samples
from experiments.benchmark.workloads import Workload
from gift_jax import losses
from gift_jax.runtime.progress import ProgressBar

WORKLOAD = "ConvNet-3, 32x32, batch 50"
BASE = "ce"


def main() -> None:
    """Writes cost.md and cost.json."""
    parser = argparse.ArgumentParser(prog="python -m experiments.cost")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("cost"))
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--classes", default="10", help="numbers of classes")
    parser.add_argument("--losses", default=",".join(losses.LOSS_NAMES))
    arguments = parser.parse_args()
    names = [BASE, *(n for n in arguments.losses.split(",") if n != BASE)]
    for name in names:
        losses.get_loss(name)  # raises now where there is none
    numbers = [int(number) for number in arguments.classes.split(",")]
    texts, results = [], {"machine": report.machine()}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        workload = workloads.find(f"{WORKLOAD}, {number} classes")
        samples = _times(workload, names, arguments.rounds)
        memory = {name: ours.memory_bytes(workload, name) for name in samples}
        results[workload.name] = {"seconds": samples, "bytes": memory}
        texts.append(table(workload, samples, memory))
    (arguments.out / "cost.json").write_text(json.dumps(results, indent=1))
    (arguments.out / "cost.md").write_text("\n".join(texts))
    print("\n".join(texts))


def _times(workload: Workload, names: list[str], rounds: int) -> Samples:
    contenders = [measure.Contender(name, "ours", name) for name in names]
    with (
        measure.Workers(pytorch=False) as processes,
        ProgressBar(workload.name, total=rounds, unit="round") as bar,
    ):
        return measure.steps_in_turn(
            processes,
            contenders,
            workload,
            rounds=rounds,
            on_round=lambda: bar.update(1),
        )


def table(workload: Workload, samples: Samples, memory: dict[str, int]) -> str:
    """Losses with their medians, and quartiles of the ratio to cross-entropy."""
    rows = [
        f"{workload.name}; medians, quartiles in brackets\n",
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
