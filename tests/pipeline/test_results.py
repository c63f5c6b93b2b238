"""Tests of `gift_jax.pipeline.results`: no row is lost, mixed or written twice."""

import json
import logging
import pathlib
import subprocess
import sys
import textwrap

import pytest

import gift_jax
from gift_jax.pipeline import results
from gift_jax.runtime import checksums

ROOT = pathlib.Path(gift_jax.__file__).parents[1]
ROW = {
    "run_id": "rded_ipc10_conv3_gift_adamw_lr0.001_s0",
    "dataset": "digits",
    "distill": "rded",
    "ipc": 10,
    "teacher": "conv3",
    "soft_labels": "store",
    "label_format": "float16",
    "views": 5,
    "augment": "flip=True",
    "student": "conv3",
    "epochs": 10,
    "batch_size": 50,
    "eval_every": 2,
    "trained_on": "0123456789abcdef",
    "dataset_fingerprint": "fedcba9876543210",
    "init_from": None,
    "code": None,
    "loss_code": None,
    "optimizer": "adamw",
    "learning_rate": 0.001,
    "weight_decay": 1e-4,
    "schedule": "step",
    "loss": "gift",
    "seed": 0,
    "data_seed": 0,
    "top1_last": 56.789,
    "top1_best": 57.0,
    "top5_last": 94.444,
    "train_seconds": 123.4567,
    "status": "finished",
}
CHOICE = {
    **{name: ROW[name] for name in results.TUNING_SETTINGS},
    "default_learning_rate": 0.001,
    "learning_rate": 0.01,
    "validation_images": 500,
    "seeds": [0, 1],
    "tried": [
        {"learning_rate": 0.001, "top1": 50.0},
        {"learning_rate": 0.01, "top1": None},
    ],
}


def row(run_id, **fields):
    return {**ROW, "run_id": run_id, **fields}


def file_of(workdir):
    return workdir / results.RESULTS_FILE


def test_there_are_no_results_before_the_first(tmp_path):
    assert results.read_results(tmp_path) == []


def test_rows_are_read_as_they_were_appended(tmp_path):
    lost = {"status": "diverged", "top1_last": None, "top1_best": None}
    rows = [row("a"), row("b", **lost, loss="my_losses:margin-width=2")]
    for one in rows:
        results.append_result(tmp_path, one)
    assert results.read_results(tmp_path) == rows
    assert [json.loads(line) for line in file_of(tmp_path).open()] == [
        checksums.with_checksum(one) for one in rows
    ]


def test_a_row_that_was_damaged_is_passed_over_and_written_again(tmp_path):
    for one in (row("a", top1_last=30.0), row("b", top1_last=40.0)):
        results.append_result(tmp_path, one)
    text = file_of(tmp_path).read_text()
    file_of(tmp_path).write_text(text.replace("40.0", "50.0"))
    rows, skipped = results.latest_rows(tmp_path)
    assert rows == [row("a", top1_last=30.0)]
    assert len(skipped) == 1 and skipped[0].startswith("line 2: its checksum is")
    results.append_result(tmp_path, row("b", top1_last=40.0))
    assert results.read_results(tmp_path)[1] == row("b", top1_last=40.0)


def test_a_run_that_is_found_finished_is_not_written_again(tmp_path):
    for run in ("a", "b", "a", "b"):
        results.append_result(tmp_path, row(run, note=0.1 + 0.2))
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
    line = json.dumps(checksums.with_checksum(row("killed")))
    half = line[: int(len(line) * kept) if isinstance(kept, float) else kept]
    with file_of(tmp_path).open("a") as stream:
        stream.write(half)
    assert results.read_results(tmp_path) == [row("a")]
    results.append_result(tmp_path, row("b"))
    assert results.read_results(tmp_path) == [row("a"), row("b")]
    lines = file_of(tmp_path).read_text().splitlines()
    a, b = (json.dumps(checksums.with_checksum(row(name))) for name in "ab")
    assert lines == [a, half, b]
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


@pytest.mark.slow
def test_processes_that_append_at_once_lose_and_mix_nothing(tmp_path):
    script = textwrap.dedent(
        """
        import json, pathlib, sys, time
        from gift_jax.pipeline import results
        workdir, writer = pathlib.Path(sys.argv[1]), sys.argv[2]
        (workdir / f"ready{writer}").touch()
        while len(list(workdir.glob("ready*"))) < 4:
            time.sleep(0.001)
        for i in range(50):
            more = {f"padding{n}": writer * 900 for n in range(3)}
            row = json.loads(sys.argv[3]) | more | {"run_id": f"{writer}-{i}"}
            results.append_result(workdir, row)
        """
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), str(writer), json.dumps(ROW)],
            cwd=ROOT,
        )
        for writer in range(4)
    ]
    assert [writer.wait(timeout=120) for writer in writers] == [0] * 4
    rows = results.read_results(tmp_path)
    expected = {f"{writer}-{i}" for writer in range(4) for i in range(50)}
    assert {r["run_id"] for r in rows} == expected
    assert all(r["padding2"] == r["run_id"][0] * 900 for r in rows)
    lines = file_of(tmp_path).read_text().split("\n")
    assert sum(bool(line) for line in lines) == 200


# --- Chosen learning rates ------------------------------------------------------------


def test_a_choice_made_again_counts(tmp_path):
    first, second = CHOICE, {**CHOICE, "learning_rate": 0.001}
    other = {**CHOICE, "loss": "kl"}
    for one in (first, other, second, second, first, other):
        results.append_tuning(tmp_path, one)
    lines = (tmp_path / results.TUNING_FILE).read_text().splitlines()
    assert [checksums.without_checksum(json.loads(line)) for line in lines] == [
        first, other, second, first
    ]  # fmt: skip
    assert results.latest_choices(tmp_path) == ([first, other], [])


@pytest.mark.parametrize("name", results.TUNING_SETTINGS)
def test_the_latest_choice_is_that_of_the_same_settings(tmp_path, name):
    kind = type(CHOICE[name]) if CHOICE[name] is not None else str
    other = {**CHOICE, name: kind(7), "learning_rate": 0.1}
    for one in (CHOICE, other):
        results.append_tuning(tmp_path, one)
    assert results.latest_choices(tmp_path)[0] == [CHOICE, other]


# --- What is no row -------------------------------------------------------------------

DEEP = "[" * 100_000
BAD_ROWS = [
    ({"run_id": "../../victim"}, "run_id is '../../victim', expected the name of a"),
    ({"run_id": "/etc"}, "run_id is '/etc'"),
    ({"run_id": ".."}, "run_id is '..'"),
    ({"run_id": "a\\b"}, "run_id is "),
    ({"run_id": "a" * 256}, "run_id is "),
    ({"run_id": "a\0"}, "run_id is "),
    ({"run_id": 7}, "run_id is 7"),
    ({"distilled_dir": "../x"}, "distilled_dir is '../x'"),
    ({"soft_labels_dir": "x/y"}, "soft_labels_dir is 'x/y'"),
    ({"loss": "a\nb"}, r"loss is 'a\nb', expected a text"),
    ({"loss": "\ud800"}, "loss is "),
    ({"student": "\x1b[31m"}, "student is "),
    ({"teacher": "x" * 1001}, "teacher is "),
    ({"status": "running"}, "status is 'running', expected finished or diverged"),
    ({"status": []}, "status is []"),
    ({"top1_last": None}, "top1_last is None"),
    ({"top1_best": float("nan")}, "top1_best is nan"),
    ({"top1_last": 101}, "top1_last is 101"),
    ({"top5_last": -1}, "top5_last is -1"),
    ({"ipc": 1.5}, "ipc is 1.5, expected an integer"),
    ({"ipc": True}, "ipc is True"),
    ({"ipc": None}, "ipc is None"),
    ({"seed": 10**30}, "seed is "),
    ({"learning_rate": -1}, "learning_rate is -1, expected a number of at least 0"),
    ({"learning_rate": float("inf")}, "learning_rate is inf"),
    ({"trained_on": ""}, "trained_on is ''"),
    ({"init_from": {"a": 1}}, "init_from is {'a': 1}"),
    ({"note": [1]}, "note is [1], expected a text, a number, true, false or null"),
    ({"note": float("nan")}, "note is nan"),
]


def lines_of(workdir, *lines):
    file_of(workdir).write_bytes(b"\n".join(lines) + b"\n")


@pytest.mark.parametrize(("fields", "reason"), BAD_ROWS, ids=lambda x: str(x)[:20])
def test_a_row_that_makes_no_sense_is_passed_over_with_the_reason(
    tmp_path, fields, reason
):
    bad = json.dumps({**ROW, **fields}).encode()
    lines_of(tmp_path, bad, json.dumps(ROW).encode())
    rows, (skipped,) = results.latest_rows(tmp_path)
    assert rows == [ROW]
    assert skipped.startswith(f"line 1: {reason}")
    assert len(skipped) < 200 and skipped.isprintable()


def test_rows_of_before_had_no_code_of_the_user_s(tmp_path):
    before = {name: ROW[name] for name in ROW if "code" not in name}
    lines_of(tmp_path, json.dumps(before).encode())
    assert results.read_results(tmp_path) == [ROW]
    results.append_result(tmp_path, before)
    assert len(file_of(tmp_path).read_text().splitlines()) == 1


REQUIRED = {"run_id", *results.SETTINGS, "seed", "status"} - {"code", "loss_code"}


@pytest.mark.parametrize("field", sorted(REQUIRED))
def test_a_row_without_a_field_is_passed_over(tmp_path, field):
    lines_of(tmp_path, json.dumps({k: ROW[k] for k in ROW if k != field}).encode())
    (skipped,) = results.latest_rows(tmp_path)[1]
    expected = "a row of version 1" if field == "trained_on" else f"without {field}"
    assert skipped.startswith(f"line 1: {expected}")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"[1, 2]", "a JSON list, expected an object"),
        (b'"text"', "a JSON str"),
        (b"{}", "without run_id"),
        (b"", "not JSON"),
        (b'{"run_id": "a', "not JSON"),
        (b"\xff", "not UTF-8"),
        (b"9" * 5000, "Exceeds the limit"),
        (DEEP.encode(), "maximum recursion depth"),
        (b'{"a":' * 100_000, "maximum recursion depth"),
    ],
    ids=lambda x: str(x)[:20],
)
def test_a_line_that_is_no_object_is_passed_over(tmp_path, line, reason):
    lines_of(tmp_path, line, json.dumps(ROW).encode())
    rows, (skipped,) = results.latest_rows(tmp_path)
    assert rows == [ROW]
    assert skipped.startswith(f"line 1: {reason}")


def test_lines_that_are_wrong_in_the_same_way_are_named_together(tmp_path, caplog):
    lines_of(tmp_path, *[b"{"] * 7, json.dumps(ROW).encode(), b"[]")
    with caplog.at_level(logging.WARNING):
        assert results.read_results(tmp_path) == [ROW]
        assert results.read_results(tmp_path) == [ROW]
    (first, second) = (record.getMessage() for record in caplog.records)
    assert "passed over lines 1, 2, 3, 4, 5 and 2 more: not JSON" in first
    assert "passed over line 9: a JSON list" in second


def test_a_job_goes_on_where_the_file_is_damaged(tmp_path):
    lines_of(tmp_path, b"\xff\xfe", b"{}", DEEP.encode())
    results.append_result(tmp_path, ROW)
    results.append_result(tmp_path, ROW)
    assert results.read_results(tmp_path) == [ROW]


def test_what_could_not_be_read_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="without data_seed"):
        results.append_result(tmp_path, {k: ROW[k] for k in ROW if k != "data_seed"})
    with pytest.raises(ValueError, match="tried is"):
        results.append_tuning(tmp_path, {**CHOICE, "tried": []})
    assert not list(tmp_path.iterdir())


def test_numbers_that_are_not_finite_are_written_as_null(tmp_path):
    results.append_result(tmp_path, row("a", calibration=float("nan")))
    results.append_result(tmp_path, row("a", calibration=float("nan")))
    assert results.read_results(tmp_path) == [row("a", calibration=None)]
    assert len(file_of(tmp_path).read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"loss": None}, "loss is None"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"default_learning_rate": None}, "default_learning_rate is None"),
        ({"tried": []}, "tried is []"),
        ({"tried": [{"learning_rate": 0.1}]}, "tried is [{'learning_rate': 0.1}]"),
        ({"tried": [{"learning_rate": 0.1, "top1": "x"}]}, "tried is "),
        ({"seeds": "0"}, "seeds is '0', expected a list of integers"),
    ],
)
def test_choices_that_make_no_sense_are_passed_over_with_the_reason(
    tmp_path, fields, reason
):
    lines = [json.dumps({**CHOICE, **fields}), json.dumps(CHOICE)]
    (tmp_path / results.TUNING_FILE).write_text("\n".join(lines))
    rows, (skipped,) = results.latest_choices(tmp_path)
    assert rows == [CHOICE]
    assert skipped.startswith(f"line 1: {reason}")


def test_where_all_rates_diverged_none_is_chosen(tmp_path):
    results.append_tuning(tmp_path, {**CHOICE, "learning_rate": None})
    assert results.latest_choices(tmp_path)[0][0]["learning_rate"] is None
