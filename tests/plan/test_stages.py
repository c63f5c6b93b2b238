"""The stages of a job against counts by hand."""

import numpy as np
import pytest

from gift_jax.configs import cifar10, common, digits, imagenet1k, imagenet1k_resnet18
from gift_jax.distill.matching import dc
from gift_jax.evaluators.batches import RESIDENT_BYTES
from tests.plan.planned import stages, student_training, work


def test_datasets_by_their_names_elsewhere():
    config = common.get_config("fashion")
    planned = work(config)
    assert planned.info.name == "fashion_mnist"
    assert planned.info.image_shape == (28, 28, 1)
    assert planned.real_images == {"train": 60_000, "validation": 0, "test": 10_000}


def test_a_dataset_of_unknown_size_is_refused():
    with pytest.raises(ValueError, match="folder:somewhere"):
        _ = work(common.get_config("folder:somewhere")).info


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
    assert tuned.real_images["train"] == 45_000
    assert tuned.real_images["validation"] == 5_000


# --- Devices ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("v4-8", "", 4),
        ("8xh100", "", 5),
        ("8xh100", "batch_size=128", 8),
        ("v5e-64", "batch_size=128", 64),
        ("16xh100", "", 10),
    ],
)
def test_devices_of_a_training_are_those_the_job_takes(name, options, expected):
    config = imagenet1k.get_config(options)
    assert student_training(work(config, name)).devices == expected


def test_batches_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="batch of 100 does not divide over 16 hosts"):
        student_training(work(imagenet1k.get_config(), "v5e-64"))
    with pytest.raises(ValueError, match="100 does not divide over 64 devices"):
        student_training(work(imagenet1k.get_config("batch_size=100"), "v5e-64"))


# --- Forward passes -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "steps", "per_device"),
    [
        ("v4-8", 100, 125),
        # 500 / 64 is 8 for each of the 4 devices of 16 hosts, with 3,125 images each.
        ("v5e-64", 98, 8),
    ],
)
def test_evaluations_are_padded(name, steps, per_device):
    config = imagenet1k.get_config("train.batch_size=64")
    found = stages(config, name)["test of the teacher"]
    assert (found.steps, found.per_device) == (steps, per_device)


def test_crops_are_scored_class_by_class_on_one_device():
    found = stages(imagenet1k_resnet18.get_config())["choice of crops (rded)"]
    # 300 images of 5 crops are 1,500 of each class: six times 256.
    assert (found.steps, found.per_device, found.devices) == (6 * 1000, 256, 1)
    # Digits have 143 images of a class, and 100 of them are asked for.
    found = stages(digits.get_config("distill=rded"))["choice of crops (rded)"]
    assert found.steps == 10 * int(np.ceil(100 * 5 / 256))
    config = digits.get_config("distill=rded,distilled.rded.images_per_class=300")
    found = stages(config)["choice of crops (rded)"]
    assert found.steps == 10 * int(np.ceil(143 * 5 / 256))


def test_several_teachers_are_trained_and_tested_each():
    several = {"teacher.also": ("conv3-width=16", "conv2-width=16@weights.pth")}
    config = digits.get_config("distill=rded")
    one = stages(config)
    config.update_from_flattened_dict(several)
    found = stages(config)
    assert list(found)[:6] == [
        "training of conv3-width=32, the teacher",
        "test of conv3-width=32",
        "training of conv3-width=16, the teacher",
        "test of conv3-width=16",
        "test of conv2-width=16",
        "test of the teacher",
    ]
    tests = [found[name].flops for name in found if name.startswith("test of conv")]
    assert found["test of the teacher"].flops == pytest.approx(sum(tests), rel=1e-2)
    for name in ("relabelling", "choice of crops (rded)"):
        ratio = found[name].flops / one[name].flops
        assert ratio == pytest.approx(sum(tests) / tests[0], rel=1e-2)


def test_recovery_takes_the_iterations_of_all_batches():
    config = cifar10.get_config("distill=sre2l,ipc=50,teacher.width=16")
    found = stages(config, "v4-8")
    step = found["recovery (sre2l)"]
    # Five batches of 100 images on four devices.
    assert (step.steps, step.per_device, step.devices) == (2 * 1000, 100, 4)
    forward = found["test of the teacher"]
    ratio = step.flops / step.images / (forward.flops / forward.images)
    assert 1.5 < ratio < 4  # there, and back to the images only


def test_teachers_take_turns_in_recoveries():
    config = cifar10.get_config("distill=edc,ipc=10,teacher.width=16")
    config.teacher.also = ("conv1-width=16",)
    config.distilled.edc.iterations = 7
    found = stages(config)
    names = [f"recovery (edc), conv{depth}-width=16" for depth in (3, 1)]
    assert [found[name].steps for name in names] == [4, 3]
    assert found[names[0]].flops > found[names[1]].flops
    forward = found["test of conv3-width=16"]
    ratio = found[names[0]].flops / 100 / (forward.flops / forward.images)
    assert 3 < ratio < 7  # as of SRe2L, and the images averaged over iterations
    assert found["statistics of conv1-width=16"].steps == 782  # 50,000 by 64
    assert found["choice of crops (rded)"].steps == 10 * 6


@pytest.mark.parametrize(
    ("name", "ipc", "each"),
    [
        ("dm", 2, 1),
        pytest.param("dc", 1, 1, marks=pytest.mark.slow),
        pytest.param("dc", 2, 10, marks=pytest.mark.slow),
    ],
)
def test_matching_takes_real_batches_through_new_networks(name, ipc, each, monkeypatch):
    config = cifar10.get_config(f"distill={name},ipc={ipc},student.width=16")
    config.distilled[name].update(width=16, iterations=3, batch_size=8)
    planned = work(config)
    assert not list(planned.left_out())
    found = {stage.name: stage for stage in planned.stages()}
    step = found[f"matching ({name})"]
    assert (step.steps, step.images, step.devices) == (3 * each, 10 * (8 + ipc), 1)
    forward = found["tests of conv3-width=16"]
    ratio = step.flops / step.images / (forward.flops / forward.images)
    assert 1 < ratio < 8
    epochs = found.get("training of networks (dc)")
    assert (epochs is not None) == (each > 1)
    if epochs:
        assert epochs.steps == 3 * 10 * 49
        per_image = epochs.flops / 20 / (forward.flops / forward.images)
        assert 2 < per_image < 4
        # The step has the operations of one epoch, however many there are.
        monkeypatch.setattr(dc, "_LOOPS", ((10, 10, 1),))
        assert stages(config)["matching (dc)"].flops == step.flops


def test_trajectory_matching_takes_experts_and_all_steps_of_all_iterations():
    config = cifar10.get_config("distill=datm,ipc=2,student.width=16")
    config.distilled.datm.update(width=16, iterations=30, experts=3, epochs=25)
    planned = work(config)
    assert not list(planned.left_out())
    found = {stage.name: stage for stage in planned.stages()}
    training = found["training of experts (datm)"]
    assert (training.steps, training.images) == (3 * 25 * 196, 256)
    step = found["matching (datm)"]  # 80 steps on all images, those of IPC 10's recipe
    assert (step.steps, step.images, step.devices) == (30 * 80, 20, 1)
    forward = found["tests of conv3-width=16"]
    ratio = step.flops / step.images / (forward.flops / forward.images)
    assert 8 < ratio < 16  # there and back is 3, once more, and the way back of that
    config.distilled.datm.syn_steps = 7
    changed = stages(config)["matching (datm)"]
    assert (changed.steps, changed.flops) == (30 * 7, step.flops)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        # A view of 10,000 images and 1,000 classes is stored in 2 chunks of 5,000,
        # which are 20 batches of 256.
        ("v4-8", "", (300 * 2 * 20, 64, 4)),
        # Host 0 of 16 labels 38 of the 600 chunks.
        ("v5e-64", "batch_size=128", (38 * 20, 64, 64)),
        # 7 devices pad the batch to 259.
        ("7xh100", "", (300 * 2 * 20, 37, 7)),
        # One view for all epochs.
        ("v4-8", "relabel.views=1", (2 * 20, 64, 4)),
        # Once for both students, which train at once.
        ("v4-8", "relabel.source=online", (300 * 40, 64, 4)),
        # Both hosts label all; one student after the other.
        (
            "16xh100",
            "relabel.source=online,train.students_at_once=1",
            (2 * 300 * 40, 32, 8),
        ),
    ],
)
def test_relabelling_takes_the_chunks_of_the_store(name, options, expected):
    config = imagenet1k_resnet18.get_config(options)
    config.train.seeds = (0, 1)
    found = stages(config, name)["relabelling"]
    assert (found.steps, found.per_device, found.devices) == expected


# --- Bytes --------------------------------------------------------------------------


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


# --- Stages -------------------------------------------------------------------------


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


@pytest.mark.slow
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
    assert list(planned.left_out()) == []
    config.teacher.name = "not_ours:teacher"
    config.distilled.name = "not_ours:Distiller"
    config.train.evaluators = "not_ours:length"
    planned = work(config)
    assert [s.name for s in planned.stages()] == ["training of conv3-width=32"]
    assert list(planned.left_out()) == [
        "the teacher not_ours:teacher: its test, and all that it labels",
        "the distiller not_ours:Distiller",
        "the evaluator not_ours:length",
    ]
