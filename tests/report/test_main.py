"""Tests of `gift_jax.report.__main__`: the command, and its errors in one line."""

import pytest

from gift_jax.report.__main__ import main
from tests.report.rows import GIFT, KL, rows, write_distilled, write_rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "results.jsonl does not exist"),
        (b"", "holds no line"),
        (b"{\n[]\n", "only lines that cannot be read (line 1: not JSON"),
        (b"\xff\n", "only lines that cannot be read (line 1: not UTF-8"),
        (b'{"run_id": "a", "version": "0.1.0"}\n', "line 1: a row of version 1"),
    ],
)
def test_errors_are_one_line(content, message, tmp_path, capsys):
    if content is not None:
        (tmp_path / "results.jsonl").write_bytes(content)
    assert main([str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "report").exists()


def test_a_baseline_that_was_not_run_is_an_error(tmp_path, capsys):
    write_rows(tmp_path, rows("gift", GIFT))
    assert main([str(tmp_path), "--baseline=gfit"]) == 1
    assert "did you mean 'gift'?" in capsys.readouterr().err


def test_another_baseline_turns_the_difference_round(tmp_path, capsys):
    write_rows(tmp_path, rows("kl", KL) + rows("gift", GIFT))
    assert main([str(tmp_path), "--baseline=gift", f"--out={tmp_path / 'out'}"]) == 0
    assert "report.html" in capsys.readouterr().out
    assert "*\N{MINUS SIGN}2.25*" in (tmp_path / "out" / "report.md").read_text()


def test_a_link_in_the_work_directory_is_an_error(tmp_path, capsys):
    write_rows(tmp_path / "work", rows("kl", KL))
    (tmp_path / "work" / "report").symlink_to(tmp_path)
    assert main([str(tmp_path / "work")]) == 1
    assert "report is a link" in capsys.readouterr().err


def test_a_place_that_cannot_be_written(tmp_path, capsys):
    write_rows(tmp_path, rows("kl", KL))
    (tmp_path / "report").write_text("a file of the user's")
    assert main([str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "report cannot be written" in said and "give --out=DIR" in said
    assert (tmp_path / "report").read_text() == "a file of the user's"


def test_several_work_directories_need_a_place(tmp_path, capsys):
    named = {"distilled_dir": "rded_ipc10", "soft_labels_dir": "rded_ipc10"}
    for dataset in ("digits", "fashion_mnist"):
        write_rows(tmp_path / dataset, rows("kl", KL, dataset=dataset, **named))
        write_distilled(tmp_path / dataset)
    both = [str(tmp_path / "digits"), str(tmp_path / "fashion_mnist")]
    with pytest.raises(SystemExit):
        main(both)
    assert "--out is required with 2" in capsys.readouterr().err
    out = tmp_path / "out"
    # One that is given twice counts once.
    assert main([*both, both[1], f"--out={out}"]) == 0
    assert {path.stem for path in out.glob("distilled_*.png")} == {
        "distilled_digits_rded_ipc10",
        "distilled_fashion_mnist_rded_ipc10",
    }


def test_a_fault_of_the_program_keeps_its_traceback(tmp_path, monkeypatch):
    write_rows(tmp_path, rows("kl", KL))
    monkeypatch.setattr("gift_jax.report.build.write_report", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main([str(tmp_path)])


def test_what_changed_since_another_work_directory_comes_first(tmp_path, capsys):
    write_rows(tmp_path / "new" / "runs", rows("gift", GIFT))
    write_rows(tmp_path / "old" / "runs", rows("gift", [g - 1 for g in GIFT]))
    new, old = str(tmp_path / "new" / "runs"), str(tmp_path / "old" / "runs")
    assert main([new, f"--against={old}"]) == 0
    text = (tmp_path / "new" / "runs" / "report" / "report.md").read_text()
    # Both are called runs: their paths tell them apart.
    assert text.index(f"What changed against {old}") < text.index("## Accuracy")
    assert "| +1.00" in text
    assert (tmp_path / "new" / "runs" / "report" / "changes.csv").exists()
    assert main([new, f"--against={tmp_path}"]) == 1
    assert "results.jsonl does not exist" in capsys.readouterr().err


def test_scores_are_asked_for(tmp_path, capsys):
    taught = {"teacher_top1": 90.0}
    random = {"distill": "random", "trained_on": "b" * 16}
    hard = {"soft_labels": "hard", "trained_on": "c" * 16}
    write_rows(
        tmp_path,
        [
            *rows("gift", GIFT, **taught),
            *rows("gift", KL, **random),
            *rows("ce", KL, **hard),
        ],
    )
    assert main([str(tmp_path), "--scores"]) == 0
    (line,) = (tmp_path / "report" / "scores.csv").read_text().splitlines()[1:]
    # 90 minus KL's mean of 50.625; GIFT minus KL.
    assert "+39.38" in line and "+2.25" in line
    assert main([str(tmp_path), "--scores", "--real-accuracy=80"]) == 0
    assert "+29.38" in (tmp_path / "report" / "scores.csv").read_text()
    for wrong in (["--real-accuracy=80"], ["--scores", "--real-accuracy=101"]):
        with pytest.raises(SystemExit):
            main([str(tmp_path), *wrong])
    write_rows(tmp_path, rows("gift", GIFT))
    assert main([str(tmp_path), "--scores"]) == 1
    assert "no images can be scored" in capsys.readouterr().err
