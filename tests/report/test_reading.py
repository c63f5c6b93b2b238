"""Tests of `gift_jax.report.reading`: results and metrics, whatever lies there."""

import json

import numpy as np
import pytest

from gift_jax.report import groups, reading
from gift_jax.runtime.errors import InputError
from tests.report.rows import (
    GIFT,
    KL,
    RATES,
    choice,
    rows,
    write_metrics,
    write_rows,
)


def test_the_latest_row_of_a_run_counts(tmp_path):
    old, new = (rows("kl", [top1])[0] for top1 in (10.0, 20.0))
    write_rows(tmp_path, [old, new])
    assert reading.read_results([tmp_path])[0] == [{**new, "workdir": tmp_path}]


def test_the_latest_choice_counts(tmp_path):
    write_rows(
        tmp_path,
        rows("kl", KL),
        [choice("kl", RATES[0]), choice("gift", RATES[1]), choice("kl", RATES[2])],
    )
    _, chosen, _ = reading.read_results([tmp_path])
    rates = {one["loss"]: one["learning_rate"] for one in chosen}
    assert rates == {"kl": RATES[2], "gift": RATES[1]}


def test_runs_of_several_work_directories_are_put_together(tmp_path):
    for name, accuracies in (("one", KL), ("two", GIFT)):
        write_rows(tmp_path / name, rows("kl", accuracies))
        # Names of runs are the same in both.
        write_metrics(tmp_path / name, "kl_0", accuracies[0])
        with (tmp_path / name / "results.jsonl").open("a") as file:
            file.write("{\n")
    found, _, unreadable = reading.read_results([tmp_path / "one", tmp_path / "two"])
    assert [row["top1_last"] for row in found] == KL + GIFT
    assert [why.partition(":")[0] for why in unreadable] == [
        "one/results.jsonl line 5",
        "two/results.jsonl line 5",
    ]
    curves = reading.read_curves(found)
    last = {key: curve.test[-1, 1] for key, curve in curves.items()}
    assert last == {
        (tmp_path / "one", "kl_0"): KL[0],
        (tmp_path / "two", "kl_0"): GIFT[0],
    }


def test_versions_of_a_loss_of_one_s_own_are_two_losses(tmp_path):
    found = [
        *rows("my:margin", KL[:2], loss_code="0a" * 4),
        *rows("my:margin", GIFT[:2], loss_code="1b" * 4),
        *rows("gift", GIFT[:2]),
    ]
    chosen = [choice("my:margin", RATES[0], loss_code="1b" * 4)]
    write_rows(tmp_path, found, chosen)
    of_rows, of_choices, _ = reading.read_results([tmp_path])
    grouped = groups.compare(groups.group_rows(of_rows), "gift", of_choices)
    named = {g.loss: g.summary("top1_last").mean for g in grouped}
    assert named == {
        "my:margin (code 0a0a0a0a)": np.mean(KL[:2]),
        "my:margin (code 1b1b1b1b)": np.mean(GIFT[:2]),
        "gift": np.mean(GIFT[:2]),
    }
    assert [g.difference.n for g in grouped] == [2, 2, 0]
    assert [c["loss"] for c in of_choices] == ["my:margin (code 1b1b1b1b)"]
    write_rows(tmp_path, found[2:], chosen)
    assert reading.read_results([tmp_path])[0][0]["loss"] == "my:margin"


def test_a_work_directory_of_version_1_is_refused_by_name(tmp_path):
    old = {k: v for k, v in rows("kl", KL)[0].items() if k not in ("trained_on",)}
    write_rows(tmp_path, [old])
    with pytest.raises(
        InputError, match=r"a row of version 1.*expected version 2"
    ) as e:
        reading.read_results([tmp_path])
    assert "\n" not in str(e.value)


def test_a_half_written_line_of_metrics_is_passed_over(tmp_path):
    write_metrics(tmp_path, "a", 80.0)
    curve = reading.read_curve(tmp_path, "a")
    assert curve.train.shape == (40, 2)
    np.testing.assert_allclose(curve.train[-1], [40, 97.5])
    np.testing.assert_allclose(curve.test, [[20, 40.0], [40, 80.0]])
    assert reading.read_curve(tmp_path, "b") is None


@pytest.mark.parametrize(
    "line",
    [
        b"\xff",
        b"[]",
        b"7",
        b"[" * 100_000,
        b"9" * 5000,
        b'{"epoch": "x", "top1": 1}',
        b'{"epoch": 0, "top1": "x", "test_top1": [], "gradient_norm": {}}',
        b'{"epoch": 1e999, "top1": NaN}',
        b'{"epoch": 1' + b"0" * 400 + b', "top1": 1}',
        b'{"epoch": true, "top1": 1}',
    ],
    ids=lambda line: str(line)[:30],
)
def test_lines_of_metrics_that_make_no_sense_are_passed_over(tmp_path, line):
    directory = tmp_path / "runs" / "a"
    directory.mkdir(parents=True)
    good = json.dumps({"epoch": 2, "top1": 0.5, "gradient_norm": 2.0}).encode()
    (directory / "metrics.jsonl").write_bytes(line + b"\n" + good + b"\n")
    curve = reading.read_curve(tmp_path, "a")
    np.testing.assert_array_equal(curve.train, [[3, 50]])
    np.testing.assert_array_equal(curve.gradient, [[3, 2]])


def test_nothing_is_read_outside_of_the_work_directory(tmp_path):
    workdir, victim = tmp_path / "work", tmp_path / "victim"
    write_metrics(victim, "a", 80.0)
    (workdir / "runs").mkdir(parents=True)
    (workdir / "runs" / "a").symlink_to(victim / "runs" / "a")
    assert reading.read_curve(workdir, "a") is None
    for parts in (("..", "victim"), (str(victim),), ("runs", "a")):
        with pytest.raises(InputError, match="outside of the work directory"):
            reading.inside(workdir, *parts)
    # A work directory may be reached by a link itself.
    (tmp_path / "link").symlink_to(victim)
    assert reading.read_curve(tmp_path / "link", "a") is not None
