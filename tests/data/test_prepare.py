"""Tests of `gift_jax.data.prepare`."""

import json

import pytest

from gift_jax.data import prepare, real


def test_prepare_writes_array_record(tmp_path, monkeypatch, capsys):
    # Images that are encoded already are written without TensorFlow.
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: name)
    prepare.main(["tfds:tiny_plain", f"--data_dir={tmp_path}"])
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"tfds:tiny_plain is in {tmp_path}/tiny_plain/1.0.0"
    )
    assert len(real.load_dataset("tfds:tiny_plain", data_dir=tmp_path).test) == 4
    path = tmp_path / "tiny_plain" / "1.0.0" / "dataset_info.json"
    record = {**json.loads(path.read_text()), "fileFormat": "tfrecord"}
    path.write_text(json.dumps(record))
    with pytest.raises(SystemExit):
        prepare.main(["tfds:tiny_plain", f"--data_dir={tmp_path}"])
    assert "stored as tfrecord" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digits", "nothing to prepare"),
        ("tiny_imagenet", "TFDS does not have tiny_imagenet"),
        ("cifar11", "did you mean 'cifar10'"),
        ("cifar10", '".[prepare]"'),
    ],
)
def test_prepare_explains_what_it_cannot_do(name, message, monkeypatch, capsys):
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as error:
        prepare.main([name])
    assert error.value.code == 2
    assert message in capsys.readouterr().err
