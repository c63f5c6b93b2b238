"""The stages of a job against counts by hand."""

import pytest

from configs import cifar10, common, digits, imagenet1k_resnet18
from gift_jax.plan import stages as stages_lib
from tests.plan.planned import stages, work


def test_steps_of_short_batches_are_counted():
    """Digits have 1,437 train images: 11 batches of 128 and one of 29."""
    found = stages(digits.get_config("distill=rded,train.batch_size=64"))
    teacher = found["training of conv3-width=32, the teacher"]
    assert teacher.steps == 30 * 12
    # Each of 4 devices computes all 29, where it has 32 of a whole batch.
    assert teacher.total_flops == pytest.approx(30 * (11 + 29 / 32) * teacher.flops)
    # 100 distilled images are a batch of 64 and one of 36, for KL and for GIFT.
    student = found["training of conv3-width=32, 2 times"]
    assert student.steps == 2 * 200 * 2
    assert student.total_flops == pytest.approx(400 * (1 + 36 / 16) * student.flops)
    assert found["relabelling"].steps == 200


def test_resnet18_on_imagenet():
    found = stages(imagenet1k_resnet18.get_config())
    # 1.82 G multiply-adds by torchvision's table, padding included.
    per_image = found["test of the teacher"].flops / 500
    assert 0.9 * 2 * 1.82e9 < per_image < 2 * 1.82e9
    training = found["training of resnet18"]
    assert training.flops / training.images == pytest.approx(3 * per_image, rel=0.04)
    assert (training.steps, training.images, training.devices) == (30_000, 100, 4)
    for name in ("relabelling", "choice of crops (rded)", "tests of resnet18"):
        stage = found[name]
        assert stage.flops / stage.images == pytest.approx(per_image, rel=0.01)
    assert found["tests of resnet18"].steps == 4 * 100


def test_stages_follow_the_config():
    config = common.get_config("digits")
    assert list(stages(config)) == [
        "training of conv3, the teacher",
        "test of the teacher",
        "choice of crops (rded)",
        "relabelling",
        "training of conv3",
        "tests of conv3",
    ]
    config.teacher.checkpoint = "weights.pth"  # need not exist
    config.distilled.name = "random"
    config.train.seeds = (0, 1, 2)
    config.train.epochs = 10
    config.student.name = "conv2+conv3-width=32"
    config.loss.name = "kl+gift"
    found = stages(config)
    assert list(found) == [
        "test of the teacher",
        "relabelling",
        "training of conv2, 6 times",
        "tests of conv2",
        "training of conv3-width=32, 6 times",
        "tests of conv3-width=32",
    ]
    # After 2, 4, ... and 10 epochs, all 360 images at once.
    assert found["tests of conv2"].steps == 6 * 5
    # The labels of published images take no teacher.
    config.distilled.path = "images.npz"
    config.relabel.source = "dataset"
    assert next(iter(stages(config))) == "training of conv2, 6 times"


def test_tuned_students_are_validated_once():
    config = cifar10.get_config("tuning.enabled=True,train.epochs=8,student=conv1")
    found = stages(config)
    assert found["training of conv1, 7 times"].steps == 7 * 8 * 2
    # The default rate and the chosen one are tested four times on 10,000 images, five
    # rates validated once on 5,000; 500 at a time.
    assert found["tests of conv1"].steps == 2 * 4 * 20
    assert found["validation of conv1"].steps == 5 * 10


MODULE = """
import dataclasses
from typing import ClassVar

def teacher(images):
    return None

def length(split, transform, *, devices, batch_size, workers):
    return lambda model, state: {}

@dataclasses.dataclass(frozen=True)
class Distiller:
    needs: ClassVar[frozenset] = frozenset()
    ipc: int = 1

    def make(self, data, *, teacher, seed, on_progress=None):
        return None
"""


def test_what_has_no_network_of_ours_is_left_out_and_named(tmp_path, monkeypatch):
    (tmp_path / "not_ours.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    config = digits.get_config("distill=random,loss=gift")
    planned = work(config)
    assert list(stages_lib.left_out(planned)) == []
    config.teacher.name = "not_ours:teacher"
    config.distilled.name = "not_ours:Distiller"
    config.train.evaluators = "not_ours:length"
    planned = work(config)
    assert [s.name for s in stages_lib.stages(planned)] == [
        "training of conv3-width=32"
    ]
    assert list(stages_lib.left_out(planned)) == [
        "the teacher not_ours:teacher: its test, and all that it labels",
        "the distiller not_ours:Distiller",
        "the evaluator not_ours:length",
    ]
