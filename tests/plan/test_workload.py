"""Numbers of images, students and labels of a job."""

from gift_jax import specs
from gift_jax.configs import (
    cifar10,
    cifar100,
    digits,
    imagenet1k,
    imagenet1k_resnet18,
)
from gift_jax.evaluators.batches import RESIDENT_BYTES
from gift_jax.plan import cost_model
from gift_jax.plan.workload import Workload
from tests.plan.planned import stages, work


def test_tuning_adds_trainings_and_takes_images_from_the_teacher():
    config = cifar10.get_config("tuning.enabled=True")
    config.train.seeds = (0, 1)
    tuned = work(config)
    (trainings,) = tuned.trainings.values()
    assert [t[1:] for t in trainings] == [
        (2, "test"),
        (5, "validation"),
        (2, "test"),
    ]
    assert tuned.real.images["train"] == 45_000
    assert tuned.real.images["validation"] == 5_000


def test_soft_labels_of_imagenet():
    config = imagenet1k.get_config()
    assert work(config).soft_label_bytes == 6_000_000_000
    config.relabel.format = "top10"
    assert work(config).soft_label_bytes == 300 * 10_000 * 42
    config.relabel.source = "online"
    assert work(config).soft_label_bytes == 0


def test_test_images_lie_on_the_devices_if_they_are_few():
    assert work(imagenet1k.get_config()).resident_bytes == 50_000 * 64 * 64 * 3 / 4
    large = imagenet1k_resnet18.get_config()
    assert work(large, "v4-8").resident_bytes == 0
    assert work(large, "v5e-64").resident_bytes == 50_000 * 224 * 224 * 3 / 64
    assert work(large, "v5e-64").resident_bytes < RESIDENT_BYTES


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
    assert list(planned.left_out()) == []
    config.teacher.name = "not_ours:teacher"
    config.distilled.name = "not_ours:Distiller"
    config.train.evaluators = "accuracy+not_ours:length"
    planned = work(config)
    of_student = ["training of conv3-width=32", "tests of conv3-width=32"]
    assert list(stages(config)) == of_student
    assert list(planned.left_out()) == [
        "the teacher not_ours:teacher: its test, and all that it labels",
        "the distiller not_ours:Distiller",
        "the evaluator not_ours:length",
    ]


# --- Class-incremental training -----------------------------------------------------


def last_but_one(teacher):
    config = cifar100.get_config("ipc=20")
    config.continual.update(steps=5, orders=(0,), teachers=teacher)
    spec = specs.expand(config)[3]
    return Workload(spec, cost_model.machine("v4-8"))


def test_a_step_has_the_classes_so_far():
    """Four of five steps of 20 classes are 80."""
    for teacher, outputs in (("future", 100), ("masked", 80), ("retrained", 80)):
        step = last_but_one(teacher)
        assert step.distilled_images == 80 * 20
        assert step.seen.images["test"] == 8_000
        assert step.student_info.num_classes == outputs
        assert step.soft_label_bytes == 2 * step.spec.views * 1_600 * outputs
        assert step.spec.is_retrained == (teacher == "retrained")


def test_matching_keeps_the_train_split_on_the_host():
    for name, expected in (
        ("dm", 50_000 * 3_072),
        ("datm", 50_000 * 3_072),
        ("rded", 0),
    ):
        assert work(cifar10.get_config(f"distill={name}")).host_bytes == expected
