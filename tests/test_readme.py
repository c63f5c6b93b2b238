"""What the README shows is run, and what it names is there."""

import pathlib
import re

import matplotlib
import numpy as np
import pytest
from sklearn import datasets, linear_model

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def block(name):
    """The code between a marker and its end."""
    (text,) = re.findall(
        rf"<!-- {name} -->\n```\w+\n(.*?)```\n<!-- end -->", README, re.S
    )
    return text


def test_the_library_s_program_is_short_and_learns(tmp_path, monkeypatch, capsys):
    program = block("library")
    assert len(program.splitlines()) <= 25
    digits = datasets.load_digits()
    images = (digits.images * 255 / 16).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int32)
    teacher = linear_model.LogisticRegression(max_iter=300)
    teacher.fit(digits.data[:1000] / 16, labels[:1000])
    np.savez(
        tmp_path / "distilled.npz",
        images=images[:100],
        labels=labels[:100],
        logits=teacher.decision_function(digits.data[:100] / 16),
        test_images=images[1000:],
        test_labels=labels[1000:],
    )
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    names = {}
    exec(program, names)
    top1 = float(capsys.readouterr().out.split()[-1])
    assert top1 > 60  # chance is 10
    assert len(names["curve"]) == 100 and names["curve"][-1] < names["curve"][0] / 3
    assert list(tmp_path.iterdir()) == [tmp_path / "distilled.npz"]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_what_is_named_is_there(page):
    text = page.read_text()
    named = re.findall(r"`((?:gift_jax|configs|experiments|tests|docs)/[\w/.]*)", text)
    for path in named:
        assert (ROOT / path).exists(), path
    for module in re.findall(r"python -m ((?:gift_jax|experiments)[\w.]*)", text):
        in_a_clone = re.sub(r"^gift_jax\.(?=experiments\.)", "", module)
        path = ROOT / in_a_clone.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
