"""One of everything of the user's own, in no file of the project, by the command."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from gift_jax.configs import digits
from gift_jax.pipeline import job
from gift_jax.runtime.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[1]

MINE = '''
"""What a user writes."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gift_jax.distilled import DistilledDataset, Metadata


def margin(student_logits, teacher_logits, labels, *, temperature=2.0):
    soft = jax.nn.softmax(teacher_logits / temperature)
    return optax.softmax_cross_entropy(student_logits, soft)


def slow_sgd(learning_rate, *, momentum=0.5):
    return optax.sgd(learning_rate, momentum=momentum)


class Net(nn.Module):
    num_classes: int
    width: int = 4

    @nn.compact
    def __call__(self, images, train=False):
        x = images.reshape(len(images), -1)
        return nn.Dense(self.num_classes)(nn.relu(nn.Dense(self.width)(x)))


def brightness():
    """A teacher that tells the digits by their brightest pixels."""
    from sklearn import datasets, linear_model

    digits = datasets.load_digits()
    model = linear_model.LogisticRegression(max_iter=200)
    model.fit(digits.data / 16, digits.target)
    return lambda images: model.decision_function(images.reshape(len(images), -1))


@dataclasses.dataclass(frozen=True)
class First:
    """The first images of each class."""

    needs: ClassVar[frozenset] = frozenset({"train_images"})
    ipc: int
    skip: int = 0

    def make(self, data, *, teacher, seed, on_progress=None):
        chosen = np.concatenate([
            np.flatnonzero(data.train.labels == label)[self.skip:][: self.ipc]
            for label in range(data.info.num_classes)
        ])
        return DistilledDataset(
            images=data.train.images(chosen).astype(np.float32) / 255,
            labels=data.train.labels[chosen],
            metadata=Metadata(data.info.name, data.info.num_classes, "first", "mine"),
            preprocess=data.info.normalization,
        )


@dataclasses.dataclass(frozen=True)
class Three:
    """Whose `make` makes no images."""

    needs: ClassVar[frozenset] = frozenset()
    ipc: int

    def make(self, data, *, teacher, seed, on_progress=None):
        return 3


@dataclasses.dataclass(frozen=True)
class Deaf(Three):
    """Whose `make` cannot be told where to report progress."""

    def make(self, data, *, teacher, seed):
        return 3


class Plain:
    """As one forgets to decorate it."""

    needs: ClassVar[frozenset] = frozenset()

    def __init__(self, ipc):
        self.ipc = ipc

    def make(self, data, *, teacher, seed, on_progress=None):
        raise NotImplementedError


def read(request):
    images = np.load(request.path)
    return DistilledDataset(
        images=images,
        labels=np.repeat(np.arange(10), len(images) // 10),
        metadata=Metadata("digits", 10, "mine", str(request.path)),
        preprocess=request.info().normalization,
    )


def length(split, transform, *, devices, batch_size, workers):
    def measure(model, state):
        leaves = jax.tree.leaves(state.params)
        return {"length": float(sum(jnp.sum(leaf**2) for leaf in leaves))}

    return measure


def same_name(split, transform, *, devices, batch_size, workers):
    return lambda model, state: {"top1": 3.0}


def read_two(request, other):
    raise NotImplementedError
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    sys.modules.pop("mine", None)


def command(directory, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "gift_jax.main", *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = (directory / "w" / "results.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_one_of_everything(mine):
    rows = command(
        mine,
        f"--config={ROOT}/configs/digits.py:ipc=2,epochs=3",
        "--config.teacher.name=mine:brightness",
        "--config.distilled.name=mine:First-skip=1",
        "--config.student.name=mine:Net-width=8+conv1-width=4",
        "--config.augment.diffaug=flip",
        "--config.loss.name=mine:margin-temperature=3.0+gift",
        "--config.optimizer.name=mine:slow_sgd-momentum=0.7",
        "--config.train.evaluators=accuracy+mine:length",
        "--workdir=w",
    )
    assert len(rows) == 4
    row = rows[0]
    assert row["status"] == "finished"
    assert row["teacher"] == "mine:brightness" and row["teacher_top1"] > 90
    assert row["distill"] == "mine:First-skip=1" and row["ipc"] == 2
    assert row["student"] == "mine:Net-width=8"
    assert row["loss"] == "mine:margin-temperature=3.0"
    assert row["optimizer"] == "mine:slow_sgd-momentum=0.7"
    assert row["length_last"] > 0 and 0 <= row["top1_last"] <= 100
    assert len({row["run_id"] for row in rows}) == 4


def test_a_reader(mine, one_device):
    import numpy as np

    images = np.random.default_rng(0).uniform(size=(20, 8, 8, 1)).astype(np.float32)
    np.save(mine / "images.npy", images)
    config = small("teacher.name", "mine:brightness")
    config.distilled.path = "images.npy"
    config.distilled.source = "mine:read"
    config.distilled.name = "theirs"
    config.distilled.ipc = 2
    (row,) = job.run_job(config, mine / "w")
    assert (row["distill"], row["ipc"], row["status"]) == ("theirs", 2, "finished")


def small(field, value):
    config = digits.get_config("ipc=1,epochs=1,loss=gift,student=conv1,distill=random")
    config.teacher.name = "conv1"
    config.teacher.epochs = 1
    config.teacher.width = config.student.width = 4
    config.teacher.min_accuracy = 0.0
    config.update_from_flattened_dict({field: value})
    return config


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("loss.name", "nowhere:margin", r"loss.*nowhere.*cannot be imported"),
        ("loss.name", "mine:margn", "did you mean 'margin'"),
        ("loss.name", "mine:margin-temprature=1", "did you mean 'temperature'"),
        ("loss.name", "mine:brightness", "loss"),
        ("optimizer.name", "mine:slow_sdg", "did you mean 'slow_sgd'"),
        ("optimizer.name", "mine:brightness", "optimizer"),
        ("student.name", "mine:Nett", "did you mean 'Net'"),
        ("student.name", "mine:brightness", "mine:brightness"),
        ("teacher.name", "mine:brightnes", "did you mean 'brightness'"),
        ("teacher.name", "mine:margin", "teacher mine:margin cannot be called"),
        ("distilled.name", "mine:Frist", "did you mean 'First'"),
        ("distilled.name", "mine:margin", "distiller mine:margin cannot be called"),
        ("distilled.name", "mine:Plain", "distiller mine:Plain is no dataclass"),
        ("distilled.name", "mine:Three", "mine:Three made a int, expected a Distilled"),
        ("distilled.name", "mine:Deaf", "mine:Deaf cannot be called.*on_progress"),
        ("train.evaluators", "accuracy+mine:lenght", "did you mean 'length'"),
        ("train.evaluators", "accuracy+mine:margin", "mine:margin cannot be called"),
    ],
)
def test_wrong_ones_are_one_clear_error(mine, one_device, field, value, message):
    with pytest.raises(InputError, match=message) as caught:
        job.run_job(small(field, value), mine / "w")
    assert "\n" not in str(caught.value)
    assert not (mine / "w" / "runs").exists()


def test_a_reader_of_another_signature(mine, one_device):
    (mine / "images.npy").write_bytes(b"")
    config = small("distilled.path", "images.npy")
    config.distilled.source = "mine:read_two"
    with pytest.raises(InputError, match="reader mine:read_two cannot be called"):
        job.run_job(config, mine / "w")


def test_two_evaluators_that_measure_one_name(mine, one_device):
    config = small("train.evaluators", "accuracy+mine:same_name")
    with pytest.raises(InputError, match="two evaluators measure top1: give"):
        job.run_job(config, str(mine / "w"))
    assert not (mine / "w" / "results.jsonl").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "value"),
    [("loss.name", "mine:margin"), ("train.evaluators", "accuracy+mine:length")],
)
def test_results_depend_on_the_code_behind_a_name(mine, one_device, field, value):
    config = small(field, value)
    (before,) = job.run_job(config, mine / "a")
    (mine / "mine.py").write_text(MINE.replace("temperature=2.0", "temperature=2.5"))
    del sys.modules["mine"]
    (after,) = job.run_job(config, mine / "b")
    assert before["config_hash"] != after["config_hash"]


@pytest.mark.parametrize(
    ("field", "name", "old", "new"),
    [
        ("loss.name", "mine:margin", "temperature=2.0", "temperature=20.0"),
        pytest.param(
            *("student.name", "mine:Net", "width: int = 4", "width: int = 16"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_code_that_was_edited_is_what_the_next_job_runs(
    mine, one_device, field, name, old, new
):
    """As in a notebook, which writes a file, runs a job, and does both again."""
    config = small(field, name)
    (before,) = job.run_job(config, mine / "a")
    (mine / "mine.py").write_text(MINE.replace(old, new))
    (after,) = job.run_job(config, mine / "b")
    assert before["trained_on"] == after["trained_on"]
    assert before["gradient_norm_first"] != after["gradient_norm_first"]
    column = "loss_code" if field == "loss.name" else "code"
    assert before[column] != after[column]  # so that their seeds are not averaged
    del sys.modules["mine"]
    (anew,) = job.run_job(config, mine / "c")
    assert anew["gradient_norm_first"] == after["gradient_norm_first"]
