"""Tests of `gift_jax.report.build`: the report as a whole, and where it is written."""

import io
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from gift_jax.report import build, formatting, groups, page, reading
from gift_jax.runtime.errors import InputError
from tests.report.rows import (
    GIFT,
    KL,
    RATES,
    T_SQUARED,
    choice,
    rows,
    write_distilled,
    write_metrics,
    write_rows,
)
from tests.report.test_page import Page

SIZE = 1320  # pixels: 5.5 inches at 240 dpi


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("work") / "a<b>&c"
    all_rows = [
        *rows("kl", KL),
        *rows("gift", GIFT),
        *rows(T_SQUARED, GIFT[:1]),
        *rows("kl", GIFT, learning_rate=0.01),
        *rows("mse", [10.0] * 3, status="diverged", diverged_epoch=20),
    ]
    write_rows(
        directory,
        [
            {**r, "distilled_dir": "rded_ipc10", "soft_labels_dir": "rded_ipc10"}
            for r in all_rows
        ],
    )
    for one in all_rows:
        write_metrics(directory, one["run_id"], one["top1_last"])
    write_distilled(directory)
    with (directory / "results.jsonl").open("ab") as file:
        file.write(b'\xff\n{}\n{"run_id": "half')
    return directory


@pytest.fixture(scope="module")
def report(workdir):
    out = workdir / "report"
    files = build.write_report([workdir], out)
    assert sorted([*files, out / build.MANIFEST]) == sorted(out.iterdir())
    return out


def colors_of(pixels):
    """The colours of (H, W, 3) uint8, each as one number."""
    return set(np.unique(pixels @ np.array([0x10000, 0x100, 1])).tolist())


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
        assert len(colors_of(pixels)) > 20
        ink = (pixels < 250).any(axis=-1).mean()
        assert 0.01 < ink < 0.9, path


def test_every_colour_of_a_loss_is_in_the_bars(report):
    pixels = np.asarray(Image.open(report / "accuracy.png").convert("RGB"))
    # kl, gift and kl-t_squared=True, of which at least one run finished.
    assert {0x0072B2, 0xE69F00, 0x009E73} <= colors_of(pixels)


def test_the_page_holds_all_and_says_what_was_left_out(report):
    page = Page((report / "report.html").read_text())
    assert all(url.startswith("data:") for url in page.references)
    assert (page.tags.count("img"), page.tags.count("table")) == (5, 3)
    assert "a<b>&c" in page.text  # escaped, or it would be a tag
    assert T_SQUARED in page.text
    assert "16 runs, 13 finished and 3 diverged" in page.text
    assert "3 of 3 diverged" in page.text
    assert "none (n = 1)" in page.text
    for reason in ("17: not UTF-8", "18: without run_id", "19: not JSON"):
        assert f"results.jsonl line {reason}" in page.text


def test_markdown_refers_to_its_pictures(report):
    text = (report / "report.md").read_text()
    pictures = re.findall(r"!\[.*\]\((.+)\)", text)
    assert {path.name for path in report.glob("*.png")} == set(pictures)
    assert "| 0.001         | 50.62 ± 1.49 | **52.88 ± 2.02** |" in text


def test_the_same_results_give_the_same_files(workdir, report, tmp_path):
    again = build.write_report([workdir], tmp_path)
    for path in again:
        assert path.read_bytes() == (report / path.name).read_bytes(), path.name


def test_without_runs_and_images_there_are_tables_and_bars(tmp_path):
    write_rows(tmp_path, rows("gift", GIFT))
    names = {path.name for path in build.write_report([tmp_path], tmp_path / "out")}
    assert "accuracy.png" in names
    assert not {"differences.png", "learning_curves.png"} & names


def test_three_work_directories_of_other_teachers_and_seeds_are_three_groups(tmp_path):
    workdirs = [tmp_path / f"work{i}" for i in range(3)]
    for i, workdir in enumerate(workdirs):
        content = {
            "trained_on": f"{i}" * 16,
            "teacher_fingerprint": f"aaa{i}" * 4,
            "distilled_fingerprint": f"bbb{i}" * 4,
            "data_seed": i,
        }
        both = rows("kl", KL[i : i + 2]) + rows("gift", GIFT[i : i + 2])
        write_rows(workdir, [{**one, **content, "seed": i} for one in both[::2]])
    build.write_report(workdirs, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| data seed |" in text
    for i in range(3):
        assert f"| {i}         | {KL[i]:.2f} | {GIFT[i]:.2f} |" in text
    # No mean and no interval is over several of them.
    assert "±" not in re.sub("mean ± sample standard deviation", "", text)
    assert text.count("none (n = 1)") == 3
    summary = (tmp_path / "out" / "summary.csv").read_text().splitlines()
    assert len(summary) == 7


def test_of_two_image_folders_of_one_name_the_fingerprint_tells(tmp_path):
    for name in ("a1b2c3", "d4e5f6"):
        fields = {"dataset_fingerprint": f"{name}0000000000"}
        write_rows(tmp_path / name, rows("kl", KL, **fields))
    workdirs = [tmp_path / name for name in ("a1b2c3", "d4e5f6")]
    build.write_report(workdirs, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert re.search(r"\| dataset fingerprint \|.*\n.*\n\| a1b2c3 .*\n\| d4e5f6 ", text)


def test_the_same_run_in_two_work_directories_is_an_error(tmp_path):
    paths = [tmp_path / name for name in ("one", "two")]
    for path in paths:
        write_rows(path, rows("kl", KL))
    with pytest.raises(InputError) as error:
        build.write_report(paths, tmp_path / "out")
    assert f"'kl_0' of {paths[0]} and 'kl_0' of {paths[1]}" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_files_of_an_earlier_report_are_deleted_and_no_others(tmp_path):
    out = tmp_path / "out"
    write_rows(tmp_path, rows("kl", KL) + rows("kl", KL, student="resnet18"))
    build.write_report([tmp_path], out)
    (out / "accuracy_3.png").write_text("by hand")
    write_rows(tmp_path, rows("kl", KL))
    files = build.write_report([tmp_path], out)
    others = {out / build.MANIFEST, out / "accuracy_3.png"}
    assert set(out.iterdir()) == {*files, *others}
    assert out / "accuracy.png" in files
    assert (out / "accuracy_3.png").read_text() == "by hand"


@pytest.mark.parametrize(
    "manifest",
    [
        '["../results.jsonl", "..", "kept.py", "kept"]',
        '{"kept.py": 1}',
        "[[]]",
        "7",
        "[" * 100_000,
        "\udcff",
    ],
    ids=lambda text: text[:10],
)
def test_nothing_but_a_report_is_deleted(tmp_path, manifest):
    write_rows(tmp_path, rows("kl", KL))
    out = tmp_path / "out"
    out.mkdir()
    for name in ("kept.py", "kept"):
        (out / name).touch()
    (out / build.MANIFEST).write_text(manifest, errors="surrogateescape")
    build.write_report([tmp_path], out)
    assert (tmp_path / "results.jsonl").exists()
    assert (out / "kept.py").exists() and (out / "kept").exists()


def snapshot(directory):
    """Every file below a directory, with its contents."""
    return {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "fields",
    [
        {"run_id": "a/../../../victim/x"},
        {"run_id": "../victim"},
        {"run_id": "/tmp/victim"},
        {"distilled_dir": "../../victim"},
        {"distilled_dir": "../victim/x", "soft_labels_dir": "../../victim"},
        {"dataset": "../../victim/x", "distilled_dir": "rded_ipc10"},
    ],
    ids=str,
)
def test_nothing_is_written_outside_of_the_report(tmp_path, fields):
    workdir, out = tmp_path / "work", tmp_path / "out"
    write_distilled(workdir)
    write_distilled(tmp_path / "more")
    good = rows("kl", KL)
    # Two datasets of one name are called by the real dataset as well.
    more = [{**r, "dataset": "x", "distilled_dir": "rded_ipc10"} for r in good]
    write_rows(tmp_path / "more", more)
    write_rows(workdir, [*good, {**rows("gift", GIFT)[0], **fields}])
    (tmp_path / "victim").mkdir()
    before = snapshot(tmp_path)
    files = build.write_report([workdir, tmp_path / "more"], out)
    assert {path.parent for path in files} == {out}
    after = snapshot(tmp_path)
    assert {p: c for p, c in after.items() if out not in p.parents} == before


def test_links_in_the_way_are_replaced_and_not_followed(tmp_path):
    write_rows(tmp_path / "work", rows("kl", KL))
    out, victim = tmp_path / "out", tmp_path / "victim"
    out.mkdir()
    victim.write_text("untouched")
    for name in ("report.md", build.MANIFEST):
        (out / name).symlink_to(victim)
    build.write_report([tmp_path / "work"], out)
    assert victim.read_text() == "untouched"
    assert not (out / "report.md").is_symlink()


def test_a_link_is_no_directory_of_a_report(tmp_path):
    write_rows(tmp_path / "work", rows("kl", KL))
    (tmp_path / "victim").mkdir()
    (tmp_path / "work" / "report").symlink_to(tmp_path / "victim")
    with pytest.raises(InputError, match=r"report is a link: give --out=.*victim"):
        build.write_report([tmp_path / "work"], tmp_path / "work" / "report")
    assert not list((tmp_path / "victim").iterdir())


@pytest.mark.parametrize("is_damaged", [False, True])
def test_soft_labels_that_cannot_be_read_do_not_stop_the_report(is_damaged, tmp_path):
    write_distilled(tmp_path)
    stored = tmp_path / "soft_labels" / "rded_ipc10"
    if is_damaged:
        shutil.rmtree(stored / "logits" / "c" / "0")
    stored.rename(stored.with_name("rded_ipc10_conv3_v2"))
    named = {"distilled_dir": "rded_ipc10", "soft_labels_dir": "rded_ipc10_conv3_v2"}
    write_rows(tmp_path, [{**one, **named} for one in rows("kl", KL)])
    build.write_report([tmp_path], tmp_path / "out")
    report = (tmp_path / "out" / "report.md").read_text()
    assert ("cannot be read" in report) == is_damaged
    assert ("softmax of the teacher's logits of that view" in report) != is_damaged


def test_a_distilled_dataset_that_cannot_be_read_is_named(tmp_path):
    write_distilled(tmp_path)
    (tmp_path / "distilled" / "rded_ipc10" / "distilled.npz").write_bytes(b"\xff")
    write_rows(tmp_path, [{**r, "distilled_dir": "rded_ipc10"} for r in rows("kl", KL)])
    build.write_report([tmp_path], tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "What cannot be read is left out: distilled/rded_ipc10: " in text


def test_tuned_learning_rates_are_reported(tmp_path):
    chosen = [choice("kl", RATES[2]), {}, choice("gift", RATES[0])]
    write_rows(tmp_path, rows("kl", KL) + rows("gift", GIFT), chosen)
    files = build.write_report([tmp_path], tmp_path / "out")
    assert {"tuning.tex", "learning_rates.png"} <= {path.name for path in files}
    text = (tmp_path / "out" / "report.md").read_text()
    assert "With 2 of the chosen rates no run is in the results" in text
    assert "tuning.jsonl line 2: without dataset" in text


def chromium(tmp_path, file, *arguments):
    """What headless Chromium prints of a page, which it opens without an error."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("needs chromium: apt-get install chromium")
    finished = subprocess.run(
        [
            program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}",
            *arguments,
            file.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0
    assert "CONSOLE" not in finished.stderr
    return finished.stdout


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 500])
def test_chromium_opens_the_page_without_an_error(width, report, tmp_path):
    screenshot = tmp_path / "page.png"
    chromium(
        tmp_path,
        report / "report.html",
        f"--window-size={width},2000",
        f"--screenshot={screenshot}",
    )
    pixels = np.asarray(Image.open(io.BytesIO(screenshot.read_bytes())).convert("L"))
    assert pixels.shape == (2000, width)
    assert pixels.std() > 10


@pytest.mark.slow
def test_a_click_on_a_heading_sorts_and_a_second_one_turns_round(tmp_path):
    low = formatting.signed_interval_text((-12.8, -5.4))
    minus, absent = formatting.signed_text(-3), formatting.ABSENT
    cells = ["9", "+10.5 ± 1", minus, absent, low]
    lines = "".join(f"<tr><td>{cell}</td></tr>" for cell in cells)
    file = tmp_path / "page.html"
    file.write_text(
        "<!doctype html><meta charset='utf-8'><table><thead><tr><th>a</th></tr></thead>"
        f"<tbody>{lines}</tbody></table>{page._SORT}<script>"
        "const read = () => [...document.querySelectorAll('td')].map((cell) => "
        "cell.textContent).join(';');"
        "document.querySelector('th').click(); const up = read();"
        "document.querySelector('th').click(); document.title = up + '|' + read();"
        "</script>"
    )
    shown = chromium(tmp_path, file, "--dump-dom")
    (found,) = re.findall("<title>(.*)</title>", shown)
    up, down = (text.split(";") for text in found.split("|"))
    assert up == [low, minus, "9", "+10.5 ± 1", absent]
    assert down == ["+10.5 ± 1", "9", minus, low, absent]


def test_a_notebook_gets_the_bars_of_one_benchmark(tmp_path):
    write_rows(tmp_path, [*rows("kl", [1.0]), *rows("kl", [2.0], ipc=50)])
    with pytest.raises(InputError, match="draws one benchmark, and there are 2"):
        build.plot(tmp_path)


def test_a_notebook_gets_the_bars(workdir):
    figure = build.plot(workdir)
    rows, *_ = reading.read_results([workdir])
    bars = sum(len(axes.patches) for axes in figure.axes)
    means = [g.summary("top1_last").mean for g in groups.group_rows(rows)]
    assert bars == sum(mean is not None for mean in means) > 0
    picture = Image.open(io.BytesIO(figure._repr_png_()))  # without pyplot, too
    assert picture.width > 600 and np.asarray(picture.convert("L")).std() > 10


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        (["kl-t_squared=True", "gift", "kl"], "kl"),
        (["gift", "kl-t_squared=True"], "kl-t_squared=True"),
        (["gift", "soft_ce"], None),
    ],
)
def test_the_default_baseline_is_kl_or_else_kl_times_t_squared(
    tmp_path, losses, expected
):
    write_rows(tmp_path, [row for loss in losses for row in rows(loss, KL)])
    report = build.make_report([tmp_path])
    found = {g.baseline and g.baseline.loss for g in report.groups}
    assert found == {expected}
