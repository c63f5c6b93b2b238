"""Speed of SRe2L's recovery beside a PyTorch loop of the official procedure.

    python -m experiments.benchmark.recovery [--out=DIR] [--rounds=N]
        [--iterations=N] [--whole-rounds=N]

100 images of CIFAR-10's size, ConvNet-3 of width 128, the same random weights in both.
First single iterations, compiled before; then whole recoveries from the call to the
8-bit pixels, compilation included, each in a process of its own whose imports are not
timed. All of them run in turn, round after round; ratios are within a round. Last, what
ImageNet-1k would take at these rates.
"""

import argparse
import functools
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.benchmark import extrapolation, measure, report, workers
from experiments.benchmark.measure import Contender
from experiments.benchmark.recovery_problem import WORKLOAD
from experiments.benchmark.rounds import Samples, in_turn
from gift_jax.runtime.errors import pip_install
from gift_jax.runtime.progress import ProgressBar

OURS = "gift_jax"
_FORMATS = ("channels_last", "contiguous")


def main() -> int:
    """Times everything and writes recovery.md and recovery.json.

    Returns:
        The exit code, 1 where a process failed.
    """
    arguments = _parse()
    os.environ["JAX_PLATFORMS"] = "cpu"  # where PyTorch's side runs
    pytorch = measure.has_torch()
    if not pytorch:
        print(
            "PyTorch is not installed, so its loop is left out: "
            f"{pip_install('torch')}",
            file=sys.stderr,
        )
    try:
        steps = _single(arguments.rounds, pytorch=pytorch)
        whole = _whole(arguments.iterations, arguments.whole_rounds, steps)
    except (workers.WorkerError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    results = {
        "machine": report.machine(),
        "iteration": steps,
        "iterations": arguments.iterations,
        "whole": whole,
        "extrapolation": extrapolation.text(
            {name: float(np.median(seconds)) for name, seconds in steps.items()}
        ),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = markdown(results)
    (arguments.out / "recovery.md").write_text(text)
    (arguments.out / "recovery.json").write_text(json.dumps(results, indent=1))
    print(text)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmark.recovery")
    add = parser.add_argument
    add("--out", type=pathlib.Path, default=pathlib.Path("recovery_benchmark"))
    add("--rounds", type=_positive, default=25, help="of single iterations")
    add("--iterations", type=_positive, default=100, help="of a whole recovery")
    add("--whole-rounds", type=_positive, default=3, help="of whole recoveries")
    return parser.parse_args()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def _single(rounds: int, *, pytorch: bool) -> Samples:
    """Seconds of an iteration of every round."""
    contenders = [Contender(OURS, "ours", "recovery")]
    if pytorch:
        contenders += [
            Contender(label, worker, f"recovery, {memory_format}")
            for worker, labels in (
                ("torch", measure.PYTORCH),
                ("torch kept", measure.PYTORCH_KEPT),
            )
            for label, memory_format in zip(labels, _FORMATS, strict=True)
        ]
    return measure.in_processes(
        "iterations", contenders, WORKLOAD, rounds=rounds, pytorch=pytorch
    )


def _whole(iterations: int, rounds: int, steps: Samples) -> Samples:
    """Seconds of whole recoveries; for PyTorch, in the faster of both formats."""
    contenders = {OURS: _process("recovery_ours", f"--iterations={iterations}")}
    for labels, kept in (
        (measure.PYTORCH, ()),
        (measure.PYTORCH_KEPT, ("--keep-freed-memory",)),
    ):
        label = measure.faster(steps, labels)
        if label is not None:
            contenders[label] = _process(
                "recovery_official",
                f"--iterations={iterations}",
                f"--memory-format={_FORMATS[labels.index(label)]}",
                *kept,
            )
    with ProgressBar("whole", total=rounds, unit="round") as bar:
        return in_turn(contenders, rounds=rounds, on_round=lambda: bar.update(1))


def _process(module: str, *arguments: str) -> Callable[[], float]:
    command = [sys.executable, "-m", f"experiments.benchmark.{module}", *arguments]
    return functools.partial(_printed_seconds, command)


def _printed_seconds(command: list[str]) -> float:
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.split()[-1])


def markdown(results: Mapping[str, Any]) -> str:
    """The results as text with tables."""
    parts = [
        f"Machine: {results['machine']}. SRe2L's recovery of 100 images, ConvNet-3 of "
        "width 128, 32x32. Medians, quartiles in brackets; ratios are within a round.",
        _table("an iteration", results["iteration"]),
        _table(
            f"a whole recovery of {results['iterations']:,} iterations",
            results["whole"],
        ),
        results["extrapolation"],
    ]
    return "\n\n".join(parts) + "\n"


def _table(what: str, samples: Samples) -> str:
    rows = [f"| {what}, rounds: {len(samples[OURS])} | s | over ours |\n|---|---|---|"]
    for name, seconds in samples.items():
        ratios = list(np.divide(seconds, samples[OURS]))
        over = "" if name == OURS else report.spread(ratios, 1, 2)
        rows.append(f"| {name} | {report.spread(seconds, 1, 3)} | {over} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
