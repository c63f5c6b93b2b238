"""Tests of the report as a whole: its files, its page and its errors."""

import html.parser
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from test_report_examples import write_distilled
from test_report_statistics import GIFT, KL, rows
from test_report_tuning import RATES
from test_report_tuning import line as choice_line

from gift_jax.report import build, curves, reading
from gift_jax.report.__main__ import main

LOSS = "kl-t_squared=True"
SIZE = 1320  # pixels: 5.5 inches at 240 dpi
VOID = {"meta", "link", "img", "br"}


def write_rows(workdir, lines):
    workdir.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{json.dumps(one)}\n" for one in lines)
    (workdir / "results.jsonl").write_text(text)


def complete(row):
    top1 = row["top1_last"]
    return {**row, "top1_best": top1, "top5_last": 99.0, "train_seconds": 2.5}


def write_metrics(workdir, run_id, top1):
    directory = workdir / "runs" / run_id
    directory.mkdir(parents=True)
    lines = [{"epoch": e, "loss": 1 / (e + 1), "top1": e / 40} for e in range(40)]
    for epoch in (19, 39):
        lines[epoch] |= {"test_top1": top1 * (epoch + 1) / 40, "test_top5": 99.0}
    text = "".join(f"{json.dumps(one)}\n" for one in lines)
    (directory / "metrics.jsonl").write_text(text + '{"epoch": 40, "lo')


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("work") / "a<b>&c"
    other_rate = {"learning_rate": 0.01}
    all_rows = [
        *rows("kl", KL),
        *rows("gift", GIFT),
        *rows(LOSS, GIFT[:1]),
        *rows("kl", GIFT, **other_rate),
        *rows("mse", [10.0] * 3, status="diverged", diverged_epoch=20),
    ]
    all_rows = [complete(one) for one in all_rows]
    write_rows(directory, all_rows)
    for one in all_rows:
        write_metrics(directory, one["run_id"], one["top1_last"])
    write_distilled(directory)
    with (directory / "results.jsonl").open("a") as file:
        file.write('{"run_id": "half')
    return directory


@pytest.fixture(scope="module")
def report(workdir):
    out = workdir / "report"
    files = build.write_report([workdir], out)
    assert sorted([*files, out / build.MANIFEST]) == sorted(out.iterdir())
    return out


class Page(html.parser.HTMLParser):
    """Checks that tags match, and collects what a page refers to."""

    def __init__(self):
        super().__init__()
        self.open, self.references, self.text, self.tags = [], [], "", []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        names = ("src", "href", "srcset", "action", "data", "poster")
        self.references += [value for name, value in attributes if name in names]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def page(report):
    parser = Page()
    parser.feed((report / "report.html").read_text())
    parser.close()
    return parser


def test_every_picture_has_the_stated_width_and_shows_something(report):
    pictures = sorted(report.glob("*.png"))
    assert [path.stem for path in pictures] == [
        "accuracy",
        "differences",
        "distilled_rded_ipc10",
        "learning_curves",
        "learning_rates",
    ]
    for path in pictures:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert pixels.shape[1] == SIZE
        assert 200 < pixels.shape[0] < 4000
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
        ink = (pixels < 250).any(axis=-1).mean()
        assert 0.01 < ink < 0.9, path


def test_every_colour_of_a_loss_is_in_the_bars(report):
    pixels = np.asarray(Image.open(report / "accuracy.png").convert("RGB"))
    found = {tuple(color) for color in np.unique(pixels.reshape(-1, 3), axis=0)}
    # kl, gift and kl-t_squared=True, of which at least one run finished.
    assert {(0, 114, 178), (230, 159, 0), (0, 158, 115)} <= found


def test_the_page_parses_and_needs_no_network(page, report):
    assert page.open == []
    assert page.references
    assert all(url.startswith("data:") for url in page.references)
    text = (report / "report.html").read_text()
    assert not re.search(r"https?:|url\(|@import|<script", text)
    assert page.tags.count("img") == 5
    assert page.tags.count("table") == 3


def test_the_page_says_what_was_left_out(page):
    assert "a<b>&c" in page.text  # escaped, or it would be a tag
    assert LOSS in page.text
    assert "16 runs, 13 finished and 3 diverged" in page.text
    assert "3 of 3 diverged" in page.text
    assert "results.jsonl line 17: not JSON" in page.text
    assert "none (n = 1)" in page.text


def test_markdown_refers_to_its_pictures(report):
    text = (report / "report.md").read_text()
    pictures = re.findall(r"!\[.*\]\((.+)\)", text)
    assert {path.name for path in report.glob("*.png")} == set(pictures)
    assert "| 0.001         | 50.62 ± 1.49 | **52.88 ± 2.02** |" in text


def test_the_same_results_give_the_same_files(workdir, report, tmp_path):
    again = build.write_report([workdir], tmp_path)
    for path in again:
        assert path.read_bytes() == (report / path.name).read_bytes(), path.name


def test_curves_are_averaged_where_all_have_a_point():
    short = np.array([[1, 10.0], [2, 20.0]])
    long = np.array([[1, 30.0], [2, 60.0], [3, 90.0]])
    epochs, low, mean, high = curves.mean_curve([short, long])
    np.testing.assert_array_equal(epochs, [1, 2])
    np.testing.assert_array_equal(low, [10, 20])
    np.testing.assert_array_equal(mean, [20, 40])
    np.testing.assert_array_equal(high, [30, 60])
    assert [len(part) for part in curves.mean_curve([])] == [0, 0, 0, 0]


def test_a_half_written_line_of_metrics_is_passed_over(tmp_path):
    write_metrics(tmp_path, "a", 80.0)
    curve = reading.read_curve(tmp_path, "a")
    assert curve.train.shape == (40, 2)
    np.testing.assert_allclose(curve.train[-1], [40, 97.5])
    np.testing.assert_allclose(curve.test, [[20, 40.0], [40, 80.0]])
    assert reading.read_curve(tmp_path, "b") is None


def test_without_runs_and_images_there_are_tables_and_bars(tmp_path):
    write_rows(tmp_path, [complete(one) for one in rows("gift", GIFT)])
    names = {path.name for path in build.write_report([tmp_path], tmp_path / "out")}
    assert "accuracy.png" in names
    assert not {"differences.png", "learning_curves.png"} & names


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[1, 2]", "a JSON list"),
        ('"text"', "a JSON str"),
        ("{}", "run_id is None"),
        ({"status": "running"}, "status is 'running'"),
        ({"top1_last": None}, "top1_last is None"),
        ({"top1_best": float("nan")}, "top1_best is nan"),
        ({"top1_last": 101}, "top1_last is 101"),
    ],
)
def test_rows_that_make_no_sense_are_refused_with_the_reason(line, reason):
    if isinstance(line, dict):
        line = json.dumps({**complete(rows("kl", KL)[0]), **line})
    with pytest.raises(ValueError, match=re.escape(reason)):
        reading.parse_row(line)


def test_the_latest_row_of_a_run_counts(tmp_path):
    old, new = (complete(rows("kl", [top1])[0]) for top1 in (10.0, 20.0))
    write_rows(tmp_path, [old, new])
    assert reading.read_results([tmp_path]).rows == [{**new, "workdir": tmp_path}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "results.jsonl does not exist"),
        ("", "holds no line"),
        ("{\n[]\n", "only lines that cannot be read (line 1: not JSON"),
    ],
)
def test_errors_are_one_message(content, message, tmp_path, capsys):
    if content is not None:
        (tmp_path / "results.jsonl").write_text(content)
    assert main([str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "report").exists()


def test_a_baseline_that_was_not_run_is_an_error(tmp_path, capsys):
    write_rows(tmp_path, [complete(one) for one in rows("gift", GIFT)])
    assert main([str(tmp_path), "--baseline=gfit"]) == 1
    assert "did you mean 'gift'?" in capsys.readouterr().err


def test_another_baseline_turns_the_difference_round(tmp_path, capsys):
    both = [complete(one) for one in rows("kl", KL) + rows("gift", GIFT)]
    write_rows(tmp_path, both)
    assert main([str(tmp_path), "--baseline=gift", f"--out={tmp_path / 'out'}"]) == 0
    assert "report.html" in capsys.readouterr().out
    assert "*\N{MINUS SIGN}2.25*" in (tmp_path / "out" / "report.md").read_text()


def test_runs_of_several_work_directories_are_put_together(workdir, tmp_path, capsys):
    other = tmp_path / "other"
    # Names of runs and products are the same in both.
    fashion = [complete(one) for one in rows("kl", GIFT, dataset="fashion_mnist")]
    fashion = [{**one, "run_id": f"kl_{one['seed']}"} for one in fashion]
    write_rows(other, fashion)
    for one in fashion:
        write_metrics(other, one["run_id"], 10.0)
    write_distilled(other)
    results = reading.read_results([workdir, other])
    tops = {
        key[0].name: curve.test[-1, 1]
        for key, curve in reading.read_curves(results.rows).items()
        if key[1] == "kl_0"
    }
    assert tops == {workdir.name: KL[0], "other": 10.0}
    with pytest.raises(SystemExit):
        main([str(workdir), str(other)])
    assert "--out is required with 2" in capsys.readouterr().err
    out = tmp_path / "out"
    assert main([str(workdir), str(other), str(other), f"--out={out}"]) == 0
    names = {path.stem for path in out.glob("distilled_*.png")}
    assert names == {
        "distilled_digits_rded_ipc10",
        "distilled_fashion_mnist_rded_ipc10",
    }
    assert "/results.jsonl line 17: not JSON" in (out / "report.md").read_text()


def test_the_same_run_in_two_work_directories_is_an_error(tmp_path, capsys):
    for name in ("one", "two"):
        write_rows(tmp_path / name, [complete(one) for one in rows("kl", KL)])
    paths = [str(tmp_path / name) for name in ("one", "two")]
    assert main([*paths, f"--out={tmp_path / 'out'}"]) == 1
    error = capsys.readouterr().err
    assert f"'kl_0' of {paths[0]} and 'kl_0' of {paths[1]}" in error
    assert not (tmp_path / "out").exists()


def test_files_of_an_earlier_report_are_deleted_and_no_others(tmp_path):
    out = tmp_path / "out"
    two_blocks = rows("kl", KL) + rows("kl", KL, student="resnet18")
    write_rows(tmp_path, [complete(one) for one in two_blocks])
    build.write_report([tmp_path], out)
    (out / "accuracy_3.png").write_text("by hand")
    write_rows(tmp_path, [complete(one) for one in rows("kl", KL)])
    files = build.write_report([tmp_path], out)
    others = {out / build.MANIFEST, out / "accuracy_3.png"}
    assert set(out.iterdir()) == {*files, *others}
    assert out / "accuracy.png" in files
    assert (out / "accuracy_3.png").read_text() == "by hand"


def test_nothing_outside_of_the_report_is_deleted(tmp_path):
    write_rows(tmp_path, [complete(one) for one in rows("kl", KL)])
    out = tmp_path / "out"
    out.mkdir()
    (out / build.MANIFEST).write_text(json.dumps(["../results.jsonl", ".."]))
    build.write_report([tmp_path], out)
    assert (tmp_path / "results.jsonl").exists()


@pytest.mark.parametrize("is_damaged", [False, True])
def test_soft_labels_that_cannot_be_read_do_not_stop_the_report(is_damaged, tmp_path):
    write_distilled(tmp_path)
    stored = tmp_path / "soft_labels" / "rded_ipc10"
    if is_damaged:
        shutil.rmtree(stored / "logits" / "c" / "0")
    stored.rename(stored.with_name("rded_ipc10_conv3_v2"))
    named = {"distilled_dir": "rded_ipc10", "soft_labels_dir": "rded_ipc10_conv3_v2"}
    write_rows(tmp_path, [{**complete(one), **named} for one in rows("kl", KL)])
    build.write_report([tmp_path], tmp_path / "out")
    report = (tmp_path / "out" / "report.md").read_text()
    assert ("cannot be read" in report) == is_damaged
    assert ("softmax of the teacher's logits of that view" in report) != is_damaged


def test_tuned_learning_rates_are_explained(tmp_path):
    both = rows("kl", KL) + rows("gift", GIFT)
    write_rows(tmp_path, [complete(one) for one in both])
    write_choices = [choice_line("kl", RATES[2]), "{", choice_line("gift", RATES[0])]
    (tmp_path / "tuning.jsonl").write_text("\n".join(write_choices))
    files = build.write_report([tmp_path], tmp_path / "out")
    assert {"tuning.tex", "learning_rates.png"} <= {path.name for path in files}
    text = (tmp_path / "out" / "report.md").read_text()
    assert "best of 4 learning rates" in text
    assert "on 500 images held out from the training data, over 2 seeds" in text
    assert "For gift under adamw the chosen rate is at the edge" in text
    assert "With 2 of the chosen rates no run is in the results" in text
    assert "tuning.jsonl line 2: not JSON" in text


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 500])
def test_chromium_opens_the_page_without_an_error(width, report, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs chromium: apt-get install chromium")
    screenshot = tmp_path / "page.png"
    finished = subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width},2000",
            f"--screenshot={screenshot}",
            (report / "report.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0
    assert "CONSOLE" not in finished.stderr
    pixels = np.asarray(Image.open(io.BytesIO(screenshot.read_bytes())).convert("L"))
    assert pixels.shape == (2000, width)
    assert pixels.std() > 10
