"""The teacher of a job: torchvision's weights in place of a checkpoint, several."""

import dataclasses
import json
import sys

import jax
import numpy as np
import pytest

from gift_jax import models, specs
from gift_jax.configs import common
from gift_jax.data import real
from gift_jax.pipeline import teacher as teacher_stage
from gift_jax.pipeline.context import Job
from gift_jax.pipeline.grid import Grid, Shard
from gift_jax.pipeline.products import DONE_FILE
from gift_jax.pipeline.teacher import make_teacher
from gift_jax.runtime.errors import InputError, MissingPackageError
from gift_jax.teachers import ensemble
from gift_jax.torch_io import torch_import


def torchvision_job(workdir, num_classes):
    config = common.get_config("digits")
    config.teacher.name = "conv1"
    config.teacher.width = 4
    config.teacher.checkpoint = "torchvision"
    config.teacher.min_accuracy = 0.0  # the weights are random
    config.distilled.name = "random"
    (spec,) = specs.expand(config)
    digits = real.load_dataset("digits")
    info = dataclasses.replace(digits.info, num_classes=num_classes)
    data = dataclasses.replace(digits, info=info)
    return Job(spec, workdir, data, tuple(jax.devices()[:1]))


def test_torchvisions_weights_are_imported_once(tmp_path, monkeypatch):
    job = torchvision_job(tmp_path, num_classes=1000)
    network = models.create_model("conv1", num_classes=1000, image_size=8, width=4)
    weights = models.init_variables(
        network, jax.random.key(0), image_size=8, channels=1
    )
    calls = []

    def import_torchvision(model, **options):
        calls.append((model, options))
        return weights

    monkeypatch.setattr(torch_import, "import_torchvision", import_torchvision)
    made, restored = make_teacher(job), make_teacher(job)
    assert calls == [("conv1", {"image_size": 8})]
    for teacher, *_ in (made, restored):
        jax.tree.map(np.testing.assert_array_equal, teacher.variables, weights)
    assert made.teacher.fingerprint == restored.teacher.fingerprint
    recipe = json.loads((tmp_path / "teacher/conv1-width=4/recipe.json").read_text())
    assert recipe["checkpoint"] == "torchvision IMAGENET1K_V1"


@pytest.mark.parametrize(
    ("name", "checkpoint", "message"),
    [
        ("resnet18", "torchvision", r"resnet18-f37072fd\.pth.*teacher\.checkpoint"),
        ("timm:resnet18", "", r'timm, which cannot be imported.*-e "\.\[timm\]"'),
        ("torch:my_models:Net", "", "torch, which cannot be imported"),
        ("no_such_module:build", "", "'no_such_module:build' cannot be imported"),
    ],
)
def test_what_a_teacher_needs_is_looked_for_before_data_are_read(
    tmp_path, monkeypatch, name, checkpoint, message
):
    config = common.get_config("no_such_data")
    config.teacher.update(name=name, checkpoint=checkpoint)
    for package in ("torch", "torchvision", "torchvision.models", "timm"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises((InputError, MissingPackageError), match=message):
        Grid(config, tmp_path, Shard())
    made = tmp_path / "teacher" / "resnet18" / DONE_FILE
    made.parent.mkdir(parents=True)
    made.touch()
    if checkpoint:  # is not read again
        teacher_stage.check_importable(specs.expand(config)[0], tmp_path)


def test_torchvisions_weights_are_for_imagenet_only(tmp_path):
    job = torchvision_job(tmp_path, num_classes=10)
    with pytest.raises(ValueError, match=r"1000 classes of ImageNet-1k.*digits has 10"):
        make_teacher(job)
    assert not (tmp_path / "teacher/conv1-width=4").exists()


def test_several_teachers_are_products_of_their_own(tmp_path, monkeypatch):
    config = common.get_config("digits")
    config.teacher.update(name="conv1", width=4, also=("conv1-width=3",), epochs=1)
    config.distilled.name = "random"
    (spec,) = specs.expand(config)
    digits = real.load_dataset("digits")
    job = Job(spec, tmp_path, digits, tuple(jax.devices()[:1]))
    made = make_teacher(job)
    names = {path.name for path in (tmp_path / "teacher").iterdir() if path.is_dir()}
    assert names == {"conv1-width=4", "conv1-width=3", "conv1-width=4+conv1-width=3"}
    pixels = digits.test.images(np.arange(len(digits.test))) / np.float32(255)
    logits = [network.logits(pixels) for network in ensemble.members(made.teacher)]
    hits = np.mean(logits, axis=0).argmax(axis=1) == digits.test.labels
    assert made.top1 == pytest.approx(100 * hits.mean())
    # It is found again, not trained.
    monkeypatch.setattr(teacher_stage, "train_teacher", None)
    again = make_teacher(job)
    assert again.teacher.fingerprint == made.teacher.fingerprint
    first = dataclasses.replace(spec, teacher=spec.teacher.members[0])
    alone = make_teacher(job.with_spec(first))
    assert alone.teacher.fingerprint != made.teacher.fingerprint
