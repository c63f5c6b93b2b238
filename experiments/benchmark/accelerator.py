"""Students at once beside PyTorch on one accelerator, or on the processors.

    python -m experiments.benchmark.accelerator [--out=DIR] [--networks=conv3,conv4] \\
        [--students=1,8,32] [--dtypes=float32,bfloat16] [--profile=DIR]

For every network and dtype three processes, one after the other: this package with an
empty compilation cache, its start with what that one has compiled, and PyTorch. Images
and soft labels are random. accelerator.md and .json of the folder --out hold what is
found so far: a run that is killed keeps it.
"""

import argparse
import json
import pathlib
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from experiments.benchmark import measure, report
from experiments.benchmark.cases import MATMUL, NETWORKS, Case, Row, rows_of

OURS = "experiments.benchmark.accelerator_ours"
PYTORCH = "experiments.benchmark.accelerator_torch"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")

_HEAD = (
    "| network | dtype | by | what | ms per step or pass | images/s | of peak | busy "
    "| note |\n|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Measures, prints every row as it is found, and keeps all in two files."""
    arguments = _parse()
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = {
        "machine": report.machine(),
        "device": None,
        "versions": _versions(),
        "settings": {k: str(v) for k, v in vars(arguments).items()},
        "rows": [],
    }
    print(_HEAD)
    for row in _rows(arguments):
        found["rows"].append(row)
        found["device"] = found["device"] or row.get("device")
        print(line(row), flush=True)
        (arguments.out / "accelerator.json").write_text(json.dumps(found, indent=1))
        (arguments.out / "accelerator.md").write_text(markdown(found))
    print(f"\n{_about(found)}")
    if arguments.profile:
        print(
            f"Traces are in {arguments.profile}: open a folder with XProf or "
            "TensorBoard's profile plugin, or its trace.json.gz at "
            "https://ui.perfetto.dev. Devices are busy while they compute; of CPUs "
            "that is not told."
        )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmark.accelerator")
    add = parser.add_argument
    add("--out", type=pathlib.Path, default=pathlib.Path("accelerator"))
    add("--networks", type=_names, default=NETWORKS, help=", ".join(NETWORKS))
    add("--dtypes", type=_names, default=("float32", "bfloat16"))
    add("--students", type=_numbers, default=(1, 8, 32), help="that train at once")
    add("--steps", type=int, default=50, help="of an epoch")
    add("--rounds", type=int, default=10, help="how often each is timed")
    add("--test_images", type=int, default=10_000)
    add("--width", type=int, help="of ConvNets, for a trial on CPUs")
    add("--compile_modes", type=_names, default=("default",), help="of torch.compile")
    add("--profile", type=pathlib.Path, help="folder for traces of JAX's profiler")
    arguments = parser.parse_args()
    for network in arguments.networks:
        if network not in NETWORKS:
            parser.error(f"--networks has {network!r}, expected {', '.join(NETWORKS)}")
    return arguments


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "none"
    return found


def _rows(arguments: argparse.Namespace) -> Iterator[Row]:
    for network in arguments.networks:
        for dtype in arguments.dtypes:
            yield from _rows_of(
                Case(
                    network=network,
                    dtype=dtype,
                    students=arguments.students,
                    steps=arguments.steps,
                    rounds=arguments.rounds,
                    test_images=arguments.test_images,
                    width=arguments.width,
                    profile=arguments.profile and str(arguments.profile),
                    compile_modes=arguments.compile_modes,
                )
            )


def _rows_of(case: Case) -> Iterator[Row]:
    product: Row = {"platform": "cpu", "flops_per_second": None}
    with tempfile.TemporaryDirectory() as cache:
        # As `pipeline.grid` sets it up for a job.
        cached = {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        }
        for name in ("rows", "start"):
            for row in rows_of(case, OURS, name, cached, started=time.time()):
                product = row if row["what"] == MATMUL else product
                yield row
    if not measure.has_torch():
        reason = "not installed, so its loop is left out"
        yield case.row("PyTorch", "training", error=reason)
        return
    # Its process counts operations with JAX, which must not take the card's memory.
    yield from rows_of(
        case,
        PYTORCH,
        "rows",
        {"JAX_PLATFORMS": "cpu"},
        platform=product["platform"],
        peak=product["flops_per_second"],
    )


def line(row: Row) -> str:
    """A row of the table."""
    notes = [
        row.get("error", row.get("note", "")),
        _number(row.get("first_epoch_seconds"), "first epoch {:.1f} s"),
        "state not donated" if row.get("donated") is False else "",
    ]
    cells = [
        row["network"],
        row["dtype"],
        row["by"],
        row["what"],
        _number(row.get("ms"), "{:.3f}"),
        _number(row.get("images_per_second"), "{:.0f}"),
        _number(row.get("of_peak"), "{:.1%}"),
        _number(row.get("busy"), "{:.0%}"),
        "; ".join(filter(None, notes)).replace("|", "/"),
    ]
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def markdown(found: dict[str, Any]) -> str:
    """All rows, and what they were measured on."""
    return "\n".join([_HEAD, *map(line, found["rows"]), "", _about(found), ""])


def _about(found: dict[str, Any]) -> str:
    return f"Device: {found['device']}; host: {found['machine']}."


if __name__ == "__main__":
    main()
