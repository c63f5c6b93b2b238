"""The command, see the package."""

import argparse
import json
import os
import pathlib
import sys
from typing import Any

from experiments.benchmark import grid, measure, report, workers
from experiments.benchmark.workloads import WORKLOADS, training_flops
from gift_jax.runtime.errors import pip_install
from gift_jax.runtime.progress import ProgressBar

BASELINE = pathlib.Path(__file__).parents[1] / "benchmark_baseline.json"
QUICK = ("ConvNet-3, 32x32, batch 50",)


def main() -> int:
    """Times everything and writes benchmark.md, .json and .png.

    Returns:
        The exit code, 1 where --check found a ratio that fell.
    """
    arguments = _parse()
    os.environ["JAX_PLATFORMS"] = "cpu"  # where PyTorch's side runs
    if not measure.has_torch():
        print(
            "PyTorch is not installed, so its loop is left out: "
            f"{pip_install('torch')}",
            file=sys.stderr,
        )
    try:
        results = _measure(arguments.quick)
    except workers.WorkerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = report.markdown(results)
    (arguments.out / "benchmark.md").write_text(text)
    (arguments.out / "benchmark.json").write_text(json.dumps(results, indent=1))
    report.plot(results, arguments.out / "benchmark.png")
    print(text)
    if arguments.write_baseline:
        baseline = {"machine": results["machine"], "ratios": report.summary(results)}
        BASELINE.write_text(json.dumps(baseline, indent=2) + "\n")
    if not arguments.check:
        return 0
    fallen = report.regressions(results, BASELINE)
    for line in fallen:
        print(f"regression: {line}", file=sys.stderr)
    return 1 if fallen else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmark")
    add = parser.add_argument
    add("--out", type=pathlib.Path, default=pathlib.Path("benchmark"))
    add("--quick", action="store_true", help="one network, few rounds, a short grid")
    add(
        "--check",
        action="store_true",
        help=f"fail where a ratio is more than a fifth below {BASELINE.name}",
    )
    add("--write-baseline", action="store_true", help=f"replace {BASELINE.name}")
    arguments = parser.parse_args()
    if arguments.check and not (arguments.write_baseline or BASELINE.exists()):
        parser.error(f"there is no {BASELINE}; --write-baseline makes it")
    return arguments


def _measure(quick: bool) -> dict[str, Any]:
    names = QUICK if quick else tuple(WORKLOADS)
    rounds, pairs = (5, 20) if quick else (11, 100)
    grid_rounds, epochs = (1, 8) if quick else (3, 60)
    workloads = {}
    with (
        measure.Workers(pytorch=measure.has_torch()) as processes,
        ProgressBar("benchmark", total=len(names) * rounds, unit="round") as bar,
    ):
        for name in names:
            samples = measure.steps_in_turn(
                processes,
                processes.contenders,
                WORKLOADS[name],
                rounds=rounds,
                on_round=lambda: bar.update(1),
            )
            workloads[name] = {
                "gflop": training_flops(WORKLOADS[name]) / 1e9,
                "seconds": samples,
                "ratios": measure.ratios(samples, WORKLOADS[name]),
            }
        overhead = measure.loss_overhead(processes, WORKLOADS[QUICK[0]], rounds=pairs)
    return {
        "machine": report.machine(),
        "rounds": rounds,
        "workloads": workloads,
        "loss_overhead": overhead,
        "grid": {
            "epochs": epochs,
            "seconds": grid.seconds(
                epochs=epochs, rounds=grid_rounds, pytorch=measure.has_torch()
            ),
        },
    }


if __name__ == "__main__":
    sys.exit(main())
