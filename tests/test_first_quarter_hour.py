"""What docs/first_quarter_hour.md says to type is typed."""

import pathlib
import re

import jax
import pytest

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "first_quarter_hour.md"


def test_from_a_file_to_a_loss_beside_gift(tmp_path, monkeypatch, capsys, one_device):
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text()
    names = {}
    with jax.numpy_rank_promotion("allow"):  # as it is for users
        for block in re.findall(r"```python\n(.*?)```", page, re.S):
            exec(block, names)
    (said,) = re.findall(r"```text\n(.*?)```", page, re.S)
    pattern = r"(.+ under \w+): ([\d.]+) %"
    typed = dict(re.findall(pattern, capsys.readouterr().out))
    stated = dict(re.findall(pattern, said))
    assert len(names["distilled"]) == 100
    assert typed.keys() == stated.keys()
    for name, top1 in stated.items():  # as far as they are the same elsewhere
        assert float(typed[name]) == pytest.approx(float(top1), abs=6), name
