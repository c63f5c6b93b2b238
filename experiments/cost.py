"""What a training step costs with each loss, in time and in memory.

    python -m experiments.cost [--out=DIR] [--rounds=N] [--classes=10,100,1000] \\
        [--losses=gift,standardized_gift] [--base=gift]

All losses run in turn, round after round, on the same stored soft labels; times are
compared with those of the base within a round. Memory is what XLA sets aside for a step
as one program, as on accelerators; on CPUs a step is three programs, which are timed.
A step's time varies by more than a loss can take, so loss and gradient are timed alone,
too.
"""

import argparse
import json
import pathlib
from typing import Any

import numpy as np
from scipy import stats

from experiments.benchmark import measure, ours, report, workloads
from experiments.benchmark.rounds import Samples
from experiments.benchmark.workloads import Workload
from gift_jax import losses

WORKLOAD = "ConvNet-3, 32x32, batch 50"
_CONFIDENCE = 0.95


def main() -> None:
    """Writes cost.md and cost.json."""
    parser = argparse.ArgumentParser(prog="python -m experiments.cost")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("cost"))
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--classes", default="10", help="numbers of classes")
    parser.add_argument("--losses", default=",".join(losses.LOSS_NAMES))
    parser.add_argument("--base", default="ce", help="loss to compare with")
    arguments = parser.parse_args()
    base = arguments.base
    names = [base, *(n for n in arguments.losses.split(",") if n != base)]
    for name in names:
        losses.get_loss(name)  # raises now for an unknown loss
    numbers = [int(number) for number in arguments.classes.split(",")]
    texts: list[str] = []
    results: dict[str, Any] = {"machine": report.machine()}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        workload = workloads.find(f"{WORKLOAD}, {number} classes")
        contenders = [*names, *(ours.ALONE + name for name in names)]
        seconds = _times(workload, contenders, arguments.rounds)
        samples = {name: seconds[name] for name in names}
        alone = {name: seconds[ours.ALONE + name] for name in names}
        memory = {name: ours.memory_bytes(workload, name) for name in names}
        results[workload.name] = {
            "seconds": samples,
            "seconds_alone": alone,
            "bytes": memory,
        }
        texts.append(table(workload, samples, alone, memory, base))
    (arguments.out / "cost.json").write_text(json.dumps(results, indent=1))
    (arguments.out / "cost.md").write_text("\n".join(texts))
    print("\n".join(texts))


def _times(workload: Workload, names: list[str], rounds: int) -> Samples:
    contenders = [measure.Contender(name, "ours", name) for name in names]
    return measure.in_processes(
        workload.name, contenders, workload, rounds=rounds, pytorch=False
    )


def interval_of_median(values: list[float]) -> tuple[float, float]:
    """The 95% interval of the median: order statistics, free of any distribution.

    For fewer than six values the extremes, which hold less than 95%.
    """
    ordered = sorted(values)
    below = int(stats.binom.ppf((1 - _CONFIDENCE) / 2, len(ordered), 0.5))
    rank = max(below, 1) - 1
    return ordered[rank], ordered[-1 - rank]


def table(
    workload: Workload,
    samples: Samples,
    alone: Samples,
    memory: dict[str, int],
    base: str,
) -> str:
    """Losses with their medians, and the ratio to the base with two kinds of spread.

    The last column is the loss alone, in percent of a step with the base, and the 95%
    interval of its median.
    """
    rows = [
        f"{workload.name}; medians, with their 95% intervals and quartiles\n",
        f"| Loss | ms per step | over {base} | 95% interval | quartiles | MB of XLA | "
        "loss alone, % of a step |",
        "|---|---|---|---|---|---|---|",
    ]
    step = np.median(samples[base])
    for name, seconds in samples.items():
        ratios = list(np.divide(seconds, samples[base]))
        low, middle, high = report.quartiles(ratios)
        least, most = interval_of_median(ratios)
        shares = 100 * np.asarray(alone[name]) / step
        lower, upper = interval_of_median(list(shares))
        rows.append(
            f"| {name} | {1e3 * np.median(seconds):.1f} | "
            f"{middle:.4f} | [{least:.4f}, {most:.4f}] | [{low:.4f}, {high:.4f}] | "
            f"{memory[name] / 1e6:.1f} | "
            f"{np.median(shares):.3f} [{lower:.3f}, {upper:.3f}] |"
        )
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
