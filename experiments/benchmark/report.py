"""The results as a Markdown table, a plot, and a comparison with a baseline."""

import json
import os
import pathlib
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np

from experiments.benchmark.grid import OURS, PYTORCH
from experiments.benchmark.measure import GEMMS, STORED
from experiments.benchmark.rounds import Samples
from gift_jax.runtime import provenance

LARGEST_FALL = 0.2


def machine() -> str:
    """The processor and the versions of what was timed."""
    processor = f"{provenance.cpu_model()}, {os.cpu_count()} processors"
    versions = []
    for package in ("jax", "torch"):
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    return f"{processor}; {', '.join(versions)}"


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return float(low), float(middle), float(high)


def markdown(results: Mapping[str, Any]) -> str:
    """The results as text with tables."""
    parts = [
        f"Machine: {results['machine']}. Medians over {results['rounds']} rounds, "
        "quartiles in brackets."
    ]
    for name, workload in results["workloads"].items():
        rows = [
            f"| {label} | {spread(seconds, 1e3, 1)} |"
            for label, seconds in workload["seconds"].items()
        ]
        parts.append(
            f"**{name}** ({workload['gflop']:.1f} useful GFLOP per step)\n\n"
            "| | ms per step or product |\n|---|---|\n" + "\n".join(rows)
        )
    rows = [
        f"| {name} | {ratio} | {spread(values, 1, 2)} |"
        for name, workload in results["workloads"].items()
        for ratio, values in workload["ratios"].items()
    ]
    parts.append("| | Ratio | |\n|---|---|---|\n" + "\n".join(rows))
    parts.append(
        f"GIFT over cross-entropy: {spread(results['loss_overhead'], 1, 4)} of a step "
        f"({len(results['loss_overhead'])} pairs)."
    )
    grid = results["grid"]
    rows = [
        f"| {name} | {spread(seconds, 1, 1)} |"
        for name, seconds in grid["seconds"].items()
    ]
    parts.append(
        f"| Whole grid of {grid['epochs']} epochs | s |\n|---|---|\n" + "\n".join(rows)
    )
    return "\n\n".join(parts) + "\n"


def spread(values: list[float], scale: float, digits: int) -> str:
    """Median and, in brackets, quartiles of values times `scale`."""
    low, middle, high = (f"{scale * v:.{digits}f}" for v in quartiles(values))
    return f"{middle} [{low}, {high}]"


def plot(results: Mapping[str, Any], path: pathlib.Path) -> None:
    """Bars of the milliseconds per step, one panel for each workload."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    workloads = results["workloads"]
    figure, axes = pyplot.subplots(
        len(workloads), 1, figsize=(7, 2.2 * len(workloads)), squeeze=False
    )
    for axis, (name, workload) in zip(axes[:, 0], workloads.items(), strict=True):
        samples: Samples = workload["seconds"]
        labels = [label for label in samples if label not in GEMMS]
        spreads = np.array([quartiles(samples[label]) for label in labels]) * 1e3
        low, middle, high = spreads.T
        colors = ["C0" if label == STORED else "0.7" for label in labels]
        axis.barh(labels, middle, xerr=(middle - low, high - middle), color=colors)
        axis.invert_yaxis()
        axis.set_title(name, fontsize=10, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xlabel("ms per training step (median, quartiles)")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def summary(results: Mapping[str, Any]) -> dict[str, float]:
    """The medians of all ratios by name, as a baseline holds them."""
    found = {
        f"{name}: {ratio}": quartiles(values)[1]
        for name, workload in results["workloads"].items()
        for ratio, values in workload["ratios"].items()
    }
    epochs, seconds = results["grid"]["epochs"], results["grid"]["seconds"]
    if PYTORCH in seconds:
        ratios = np.divide(seconds[PYTORCH], seconds[OURS])
        found[f"grid of {epochs} epochs: over PyTorch"] = float(np.median(ratios))
    return {name: round(value, 4) for name, value in found.items()}


def regressions(results: Mapping[str, Any], baseline: pathlib.Path) -> list[str]:
    """Ratios that are more than a fifth below those of a baseline.

    Ratios that one of the two lacks are not compared.

    Raises:
        FileNotFoundError: there is no baseline.
    """
    expected: dict[str, float] = json.loads(baseline.read_text())["ratios"]
    return [
        f"{name} is {found:.2f}, {1 - found / expected[name]:.0%} below the "
        f"baseline's {expected[name]:.2f}"
        for name, found in summary(results).items()
        if name in expected and found < (1 - LARGEST_FALL) * expected[name]
    ]
