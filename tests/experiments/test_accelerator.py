"""The measurement on accelerators, here on processors and with small networks."""

import importlib
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments.benchmark import accelerator, busy, cases, measure, workloads

SMALL = cases.Case(
    network="conv3",
    dtype="float32",
    students=(1, 2),
    steps=2,
    rounds=2,
    test_images=60,
    width=16,
)


def in_this_process(case, module, name, environment, **arguments):
    return getattr(importlib.import_module(module), name)(case, **arguments)


OPTIONS = [
    *("--networks=conv3", "--dtypes=float32", "--students=1,2", "--steps=2"),
    *("--rounds=2", "--test_images=60", "--width=16", "--compile_modes="),
]


def test_every_row_is_in_the_json(monkeypatch, tmp_path):
    # A network that is compiled in a moment, in place of that name.
    tiny = workloads.Workload("tiny", "conv1", 8, 50, 10, 1)
    monkeypatch.setitem(cases._BY_NETWORK, "conv3", tiny)
    monkeypatch.setattr(accelerator, "rows_of", in_this_process)
    monkeypatch.setattr(sys, "argv", ["accelerator", *OPTIONS, f"--out={tmp_path}"])
    accelerator.main()
    check(tmp_path)


@pytest.mark.slow
def test_the_command_measures_a_small_convnet(tmp_path):
    command = [sys.executable, "-m", "experiments.benchmark.accelerator"]
    subprocess.run([*command, *OPTIONS, f"--out={tmp_path}"], check=True)
    check(tmp_path)


def check(directory):
    """What is in the files of a run with `OPTIONS`."""
    found = json.loads((directory / "accelerator.json").read_text())
    assert found["device"] == jax.local_devices()[0].device_kind
    assert found["versions"]["jax"] == jax.__version__
    rows = {(row["by"], row["what"]): row for row in found["rows"]}
    assert len(rows) == len(found["rows"])
    ours = {what: row for (by, what), row in rows.items() if by == "gift_jax"}
    assert list(ours) == [
        "start",
        "matrix product",
        "training, 1 student",
        "training, 2 students",
        "evaluation",
        "relabelling",
        "start, compiled before",
    ]
    peak = 2 * 2048**3 / np.median(ours["matrix product"]["seconds"])
    flops = workloads.training_flops(SMALL.workload)
    for students in (1, 2):
        row = ours[f"training, {students} student{'s' * (students > 1)}"]
        step = np.median(row["seconds"])
        assert len(row["seconds"]) == 2
        np.testing.assert_allclose(row["ms"], 1e3 * step)
        np.testing.assert_allclose(row["images_per_second"], 50 * students / step)
        np.testing.assert_allclose(row["of_peak"], students * flops / step / peak)
        # The first epoch compiles, and the start is that of all before it as well.
        assert row["first_epoch_seconds"] > 2 * step
        assert row["donated"] is True
    for what, images in (("evaluation", 60), ("relabelling", 4 * 100)):
        seconds = np.median(ours[what]["seconds"])
        np.testing.assert_allclose(ours[what]["images_per_second"], images / seconds)
    first = ours["training, 1 student"]
    last_step = min(first["seconds"])
    assert ours["start"]["seconds"][0] > first["first_epoch_seconds"] - 2 * last_step

    text = (directory / "accelerator.md").read_text()
    assert text == accelerator.markdown(found)

    theirs = [row for (by, _), row in rows.items() if by.startswith("PyTorch")]
    if not measure.has_torch():
        assert "left out" in theirs[0]["error"]
        return
    for row, images in zip(theirs, (50, 50, 60), strict=True):
        per_second = images / np.median(row["seconds"])
        np.testing.assert_allclose(row["images_per_second"], per_second)
    more = theirs[1]["of_peak"] * theirs[1]["ms"] / theirs[0]["ms"]
    whole = 1 + workloads.forward_flops(SMALL.workload) / flops
    np.testing.assert_allclose(more, whole * theirs[0]["of_peak"])


def test_bfloat16_is_that_of_activations_and_the_width_that_of_convnets():
    case = cases.Case(**{**vars(SMALL), "dtype": "bfloat16"})
    model = case.workload.model()
    assert (model.dtype, model.width) == (jax.numpy.bfloat16, 16)
    resnet = cases.Case(**{**vars(SMALL), "network": "resnet18_modified"})
    assert resnet.workload.width is None
    assert resnet.workload.model().dtype == jax.numpy.float32


WORKER = """
from experiments.benchmark import cases

def some(case, number):
    print("said by a library")
    yield case.row("me", "first", number=number)
    raise SystemExit(3)

cases.serve({"some": some})
"""


def test_rows_of_a_process_that_is_killed_are_kept(tmp_path, monkeypatch):
    (tmp_path / "dying.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:.")
    first, error = cases.rows_of(SMALL, "dying", "some", {}, number=7)
    assert (first["what"], first["number"], first["width"]) == ("first", 7, 16)
    assert (error["by"], error["what"]) == ("dying", "some")
    assert "code 3" in error["error"]
    assert "code 3" in accelerator.line(error)


def test_an_out_of_memory_is_a_row_and_the_next_is_measured(monkeypatch):
    from experiments.benchmark import accelerator_ours

    def train(case, soft_labels, students):
        if students == 1:
            raise MemoryError("too large\nby far")
        return accelerator_ours._Trained(0.0, 1.0, [0.5], True, None)

    monkeypatch.setattr(accelerator_ours, "_train", train)
    rows = accelerator_ours.rows(SMALL, started=0.0)
    failed, _, trained = (next(rows) for _ in range(3))
    assert failed["error"] == "MemoryError: too large"
    assert trained["images_per_second"] == 2 * 50 / 0.5


LINE = 'lines { name: "%s" events { offset_ps: %d duration_ps: %d } }'


def trace(*planes):
    text = "".join(
        f'planes {{ name: "{name}" {" ".join(LINE % line for line in lines)} }}'
        for name, lines in planes
    )
    return jax.profiler.ProfileData.from_text_proto(text)


@pytest.mark.parametrize(
    "plane, line",
    [("/device:GPU:0", "Stream #7(Compute)"), ("/device:TPU:0", "XLA Ops")],
)
def test_a_device_is_busy_in_its_operations_alone(plane, line):
    found = busy.device_intervals(
        trace(
            ("/host:CPU", [("python", 0, 9_000_000)]),
            (
                plane,
                [
                    ("XLA Modules", 0, 9_000_000),
                    (line, 1_000_000, 2_000_000),
                    (line, 2_000_000, 2_000_000),
                ],
            ),
            (plane.replace("0", "1"), [(line, 0, 9_000_000)]),
        )
    )
    assert busy.covered(found) == pytest.approx(3000)


def test_rounds_end_when_their_time_is_up(monkeypatch):
    runs = []
    assert len(SMALL.times(lambda: runs.append(1))) == len(runs) == 2
    monkeypatch.setattr(cases, "_MOST_SECONDS", 0.0)
    assert len(SMALL.times(lambda: runs.append(1))) == 1


def test_gaps_and_overlaps():
    assert busy.covered([(5, 6), (0, 2), (1, 3), (5, 5.5)]) == 4
    assert busy.covered([]) == 0


def test_a_trace_is_written_and_tells_nothing_of_processors(tmp_path):
    assert (
        busy.busy_share(lambda: jax.numpy.ones(3).block_until_ready(), tmp_path) is None
    )
    assert list(tmp_path.rglob("*.trace.json.gz"))
