"""Trainings, tests and relabellings against counts by hand."""

import pytest

from gift_jax.configs import cifar10, common, digits, imagenet1k, imagenet1k_resnet18
from tests.plan.planned import stages, student_training, work

# --- Devices ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("v4-8", "", 4),
        ("8xh100", "", 5),
        ("8xh100", "batch_size=128", 8),
        ("v5e-64", "batch_size=128", 64),
        ("v5e-64", "batch_size=32", 32),
        ("8xh100", "protocol=rded", 5),
        ("16xh100", "", 10),
    ],
)
def test_devices_of_a_training_are_those_the_job_takes(name, options, expected):
    config = imagenet1k.get_config(options)
    assert student_training(work(config, name)).devices == expected


def test_batches_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="batch of 100 does not divide over 16 hosts"):
        student_training(work(imagenet1k.get_config(), "v5e-64"))
    with pytest.raises(ValueError, match="batch of 24 does not divide over 16 hosts"):
        student_training(work(imagenet1k.get_config("batch_size=24"), "v5e-64"))


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


def test_a_teacher_is_counted_at_the_side_that_it_sees():
    config = cifar10.get_config("teacher=resnet20")
    config.teacher.checkpoint = "weights.pth"
    small = stages(config)["relabelling"].flops
    config.teacher.resize, config.teacher.transform_views = 64, True
    # Products with padding are not counted, of which large maps have fewer.
    assert stages(config)["relabelling"].flops == pytest.approx(4 * small, rel=0.06)


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


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        # A view of 10,000 images and 1,000 classes is stored in 2 chunks of 5,000,
        # which are 20 batches of 250 and a few to divide over the devices.
        ("v4-8", "", (300 * 2 * 20, 63, 4)),
        # Host 0 of 16 labels 38 of the 600 chunks.
        ("v5e-64", "batch_size=128", (38 * 20, 63, 64)),
        # 7 devices pad the batch to 259.
        ("7xh100", "", (300 * 2 * 20, 37, 7)),
        # One view for all epochs.
        ("v4-8", "relabel.views=1", (2 * 20, 63, 4)),
        # Once for both students, which train at once.
        (
            "v4-8",
            "relabel.source=online,train.students_at_once=2",
            (300 * 40, 63, 4),
        ),
        # No teacher is asked in epochs of hard labels.
        (
            "v4-8",
            "relabel.source=online,relabel.hard_epochs=200",
            (2 * 100 * 40, 63, 4),
        ),
        # Both hosts label all; one student after the other.
        ("16xh100", "relabel.source=online", (2 * 300 * 40, 32, 8)),
    ],
)
def test_relabelling_takes_the_chunks_of_the_store(name, options, expected):
    config = imagenet1k_resnet18.get_config(options)
    config.train.seeds = (0, 1)
    found = stages(config, name)["relabelling"]
    assert (found.steps, found.per_device, found.devices) == expected


# --- Stages -------------------------------------------------------------------------


def test_steps_of_short_batches_are_counted():
    """Digits have 1,437 train images: 11 batches of 128 and one of 29."""
    found = stages(digits.get_config("distill=rded,train.batch_size=64"))
    teacher = found["training of conv3-width=32, the teacher"]
    assert teacher.steps == 30 * 12
    # Each of 4 devices computes all 29, where it has 32 of a whole batch.
    assert teacher.total_flops == pytest.approx(30 * (11 + 29 / 32) * teacher.flops)
    # 100 distilled images are a batch of 64 and one of 36, for KL and for GIFT.
    student = found["training of conv3-width=32"]
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
        "training of conv2",
        "tests of conv2",
        "training of conv3-width=32",
        "tests of conv3-width=32",
    ]
    assert found["training of conv2"].times == 6
    # After 2, 4, ... and 10 epochs, all 360 images at once.
    assert found["tests of conv2"].steps == 6 * 5
    # The labels of published images take no teacher.
    config.distilled.path = "images.npz"
    config.relabel.source = "dataset"
    assert next(iter(stages(config))) == "training of conv2"


def test_tuned_students_are_validated_once():
    config = cifar10.get_config("tuning.enabled=True,train.epochs=8,student=conv1")
    found = stages(config)
    assert found["training of conv1"].times == 7
    assert found["training of conv1"].steps == 7 * 8 * 2
    # The default rate and the chosen one are tested four times on 10,000 images, five
    # rates validated once on 5,000; 500 at a time.
    assert found["tests of conv1"].steps == 2 * 4 * 20
    assert found["validation of conv1"].steps == 5 * 10


# --- Memory -------------------------------------------------------------------------


def test_a_device_keeps_a_train_split_unless_it_is_read_meanwhile():
    few = stages(cifar10.get_config())["training of conv3, the teacher"]
    assert few.arguments[1].images.shape == (50_000, 32, 32, 3)
    config = imagenet1k.get_config("teacher.width=8")
    config.teacher.batch_size = 64
    many = stages(config)["training of conv4-width=8, the teacher"]
    assert many.arguments[1].images.shape == (1, 16, 64, 64, 3)
    assert many.arguments[1].labels.shape == (1_281_167,)
    assert many.steps == config.teacher.epochs * 20_019
    config.teacher.augment.mix = "mixup"
    mixed = stages(config)["training of conv4-width=8, the teacher"]
    assert mixed.arguments[1].images.shape == (2, 16, 64, 64, 3)


def test_students_share_a_device_with_one_another_and_the_test_images():
    config = cifar10.get_config("student=conv1")
    config.train.seeds, config.train.students_at_once = (0, 1, 2), 4
    found = student_training(work(config))
    assert (found.at_once, found.resident) == (3, 10_000 * 32 * 32 * 3 / 4)
