"""Tests of `gift_jax.results`: no row is lost, mixed or written twice."""

import json
import pathlib
import subprocess
import sys
import textwrap

import pytest

import gift_jax
from gift_jax.pipeline import results

ROOT = pathlib.Path(gift_jax.__file__).parents[2]
ROW = {
    "run_id": "rded_ipc10_conv3_gift_adamw_lr0.001_s0",
    "distill": "rded",
    "ipc": 10,
    "student": "conv3",
    "loss": "gift",
    "optimizer": "adamw",
    "seed": 0,
    "top1_last": 56.789,
    "top1_best": 57.0,
    "top5_last": 94.444,
    "train_seconds": 123.4567,
    "status": "finished",
}


def row(run_id, **fields):
    return {**ROW, "run_id": run_id, **fields}


def file_of(workdir):
    return workdir / results.RESULTS_FILE


def test_there_are_no_results_before_the_first(tmp_path):
    assert results.read_results(tmp_path) == []


def test_rows_are_read_as_they_were_appended(tmp_path):
    rows = [row("a"), row("b", top1_last=None, loss="kl-t_squared=True")]
    for one in rows:
        results.append_result(tmp_path, one)
    assert results.read_results(tmp_path) == rows
    assert [json.loads(line) for line in file_of(tmp_path).open()] == rows


def test_a_run_that_is_found_finished_is_not_written_again(tmp_path):
    for run in ("a", "b", "a", "b"):
        results.append_result(tmp_path, row(run, image_shape=(32, 32, 3)))
    assert [r["run_id"] for r in results.read_results(tmp_path)] == ["a", "b"]
    assert len(file_of(tmp_path).read_text().splitlines()) == 2


def test_of_a_run_that_was_made_anew_the_new_row_counts(tmp_path):
    old, new = row("a", epochs=10, top1_last=30.0), row("a", epochs=20, top1_last=40.0)
    for one in (old, row("b"), new, new):
        results.append_result(tmp_path, one)
    assert results.read_results(tmp_path) == [new, row("b")]
    assert len(file_of(tmp_path).read_text().splitlines()) == 3


@pytest.mark.parametrize("kept", [1, 20, 0.5, -2])
def test_the_half_line_of_a_killed_writer_is_passed_over(tmp_path, kept):
    results.append_result(tmp_path, row("a"))
    line = json.dumps(row("killed"))
    half = line[: int(len(line) * kept) if isinstance(kept, float) else kept]
    with file_of(tmp_path).open("a") as stream:
        stream.write(half)
    assert results.read_results(tmp_path) == [row("a")]
    results.append_result(tmp_path, row("b"))
    assert results.read_results(tmp_path) == [row("a"), row("b")]
    lines = file_of(tmp_path).read_text().splitlines()
    assert lines == [json.dumps(row("a")), half, json.dumps(row("b"))]
    results.append_result(tmp_path, row("killed"))
    assert results.read_results(tmp_path)[-1] == row("killed")


def test_a_whole_line_without_its_end_counts(tmp_path):
    file_of(tmp_path).write_text(json.dumps(row("a")))
    results.append_result(tmp_path, row("a"))
    results.append_result(tmp_path, row("b"))
    assert results.read_results(tmp_path) == [row("a"), row("b")]


def test_a_full_disk_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(results.os, "write", lambda descriptor, data: len(data) // 2)
    with pytest.raises(OSError, match=r"cannot write all .*results\.jsonl.*disk full"):
        results.append_result(tmp_path, row("a"))


def test_processes_that_append_at_once_lose_and_mix_nothing(tmp_path):
    script = textwrap.dedent(
        """
        import pathlib, sys, time
        from gift_jax import results
        workdir, writer = pathlib.Path(sys.argv[1]), sys.argv[2]
        (workdir / f"ready{writer}").touch()
        while len(list(workdir.glob("ready*"))) < 4:
            time.sleep(0.001)
        for i in range(50):
            row = {"run_id": f"{writer}-{i}", "padding": writer * 3000}
            results.append_result(workdir, row)
        """
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), str(writer)], cwd=ROOT
        )
        for writer in range(4)
    ]
    assert [writer.wait(timeout=120) for writer in writers] == [0] * 4
    rows = results.read_results(tmp_path)
    expected = {f"{writer}-{i}" for writer in range(4) for i in range(50)}
    assert {r["run_id"] for r in rows} == expected
    assert all(r["padding"] == r["run_id"][0] * 3000 for r in rows)
    lines = file_of(tmp_path).read_text().split("\n")
    assert sum(bool(line) for line in lines) == 200


# --- The table ----------------------------------------------------------------------


def test_the_table_is_aligned_markdown():
    diverged = row(
        "b",
        loss="kl-t_squared=True",
        optimizer="sgd",
        top1_last=None,
        top1_best=None,
        top5_last=None,
        train_seconds=3.0,
        status="diverged",
    )
    head, rule, *body = results.summary_table([ROW, diverged]).splitlines()
    assert [cell.strip() for cell in head.split("|")[1:-1]] == [
        "distilled",
        "ipc",
        "student",
        "loss",
        "optimizer",
        "seed",
        "top-1 last",
        "top-1 best",
        "top-5 last",
        "seconds",
        "status",
    ]
    assert [" ".join(line.replace("|", " ").split()) for line in body] == [
        "rded 10 conv3 gift adamw 0 56.79 57.00 94.44 123.46 finished",
        "rded 10 conv3 kl-t_squared=True sgd 0 - - - 3.00 diverged",
    ]
    assert set(rule) == {"|", "-"}
    lines = [head, rule, *body]
    bars = [[i for i, letter in enumerate(line) if letter == "|"] for line in lines]
    assert bars == [bars[0]] * 4


def test_the_table_of_no_runs_is_its_head():
    head, rule = results.summary_table([]).splitlines()
    assert head.startswith("| distilled | ipc | student ")
    assert len(head) == len(rule)


def test_what_a_row_lacks_is_a_dash_in_the_table():
    last = results.summary_table([{"distill": "random"}]).splitlines()[-1]
    assert last.split() == ["|", "random", *["|", "-"] * 10, "|"]


def test_the_table_shows_what_else_tells_rows_apart():
    rows = [row("a", learning_rate=1e-4, views=5), row("b", learning_rate=0.3, views=5)]
    head, _, *body = results.summary_table(rows).splitlines()
    assert "rate" in head.split() and "views" not in head.split()
    assert ["0.0001" in body[0].split(), "0.3" in body[1].split()] == [True, True]
