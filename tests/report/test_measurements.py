"""Tables and curves of what other evaluators measured."""

import numpy as np
import pytest

from gift_jax.report import build, measurements, reading
from tests.report.rows import compared, row, rows, texts, write_metrics, write_rows

LOSSES = ("kl", "gift", "mse", "ce", "dkd")


def measured_rows(optimizer="adamw", sign=1):
    return [
        row(
            loss, seed, 50.0 + number + 0.1 * seed, optimizer=optimizer,
            info_nce_last=sign * (1.0 + number**2 + 0.01 * seed), ceiling_last=6.0,
            note_last=None,
        )
        for number, loss in enumerate(LOSSES)
        for seed in range(2)
    ]  # fmt: skip


def test_everything_that_is_a_number_stands_in_the_table():
    groups = compared(measured_rows())
    table = measurements.table(groups, LOSSES)
    assert table.header == ["loss", "info nce", "ceiling"]
    assert texts(table)[1] == ["gift", "2.005 ± 0.0071", "6 ± 0"]
    assert measurements.table(compared(rows("kl", [1.0, 2.0])), LOSSES) is None


def test_captions_say_what_the_bound_is_of():
    groups = compared(measured_rows())
    told = "divided by 0.1, in blocks of 500 images"
    assert told in measurements.table(groups, LOSSES).caption
    others = [row("kl", 0, 50.0, ece_last=0.1)]
    caption = measurements.table(compared(others), ("kl",)).caption
    assert "blocks" not in caption and "docs/theory.md" in caption


def test_correlations_are_over_settings_and_under_each_optimizer():
    groups = compared([*measured_rows(), *measured_rows("sgd", -1)])
    table = measurements.correlations(groups)
    assert table.header == ["measurement", "all", "under adamw", "under sgd"]
    (line,) = texts(table)  # the ceiling is the same throughout
    assert line[0] == "info nce"
    assert line[2] == "+1.00, n = 5"
    assert line[3].endswith("1.00, n = 5") and not line[3].startswith("+")
    assert "n = 10" in line[1] and "[" in line[1]


def test_correlations_are_within_a_benchmark():
    found = measured_rows()
    for one in (others := measured_rows(sign=-1)):
        one["ipc"], one["trained_on"] = 50, "e" * 16
    table = measurements.correlations(compared([*found, *others]))
    assert len(table.header) == 3
    assert all("under adamw (" in name for name in table.header[1:])
    (line,) = texts(table)
    assert line[1] == "+1.00, n = 5" and line[2].endswith("1.00, n = 5")
    assert line[1] != line[2]


def test_too_few_settings_have_no_correlation():
    few = [r for r in measured_rows() if r["loss"] in LOSSES[:3]]
    assert measurements.correlations(compared(few)) is None
    assert measurements.table(compared(few), LOSSES) is not None


def test_curves_are_read_and_drawn(tmp_path):
    found = measured_rows()
    write_rows(tmp_path, found)
    for one in found:
        write_metrics(tmp_path, one["run_id"], one["top1_last"])
        path = tmp_path / "runs" / one["run_id"] / "metrics.jsonl"
        text = path.read_text().replace(
            '"test_top5": 99.0', '"test_top5": 99.0, "test_info_nce": 0.5, "test_x": []'
        )
        path.write_text(text.replace('info_nce": 0.5', 'info_nce": 0.7', 1))
    curve = reading.read_curve(tmp_path, found[0]["run_id"])
    assert curve.measured.keys() == {"info_nce"}
    np.testing.assert_array_equal(curve.measured["info_nce"], [[20, 0.7], [40, 0.5]])
    files = {path.name for path in build.write_report([tmp_path], tmp_path / "report")}
    assert {
        "measurements.png",
        "measurements.png.csv",
        "rank_correlations.csv",
    } <= files
    page = (tmp_path / "report" / "report.html").read_text()
    # Below the table, in its LaTeX, and below the figure.
    assert page.count("in blocks of 500 images") == 3
    lines = (tmp_path / "report" / "measurements.png.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * len(found)


@pytest.mark.parametrize("name", ["accuracy.csv", "measurements.csv"])
def test_accuracies_are_no_measurements(tmp_path, name):
    write_rows(tmp_path, rows("kl", [1.0, 2.0], top5_last=5.0))
    files = {path.name for path in build.write_report([tmp_path], tmp_path / "report")}
    assert (name in files) == (name == "accuracy.csv")
