"""Grids, and what their jobs share."""

import itertools

import pytest

from gift_jax.configs import cifar10, cifar100, digits
from tests.plan.planned import plan, plans


def names(found):
    return [stage.name for stage in found.stages]


def test_the_teacher_is_trained_once_for_all_distilled_datasets():
    first, second = plans(digits.get_config("distill=random+rded,student=conv1"))
    assert names(first)[:2] == [
        "training of conv3-width=32, the teacher",
        "test of the teacher",
    ]
    assert names(second) == [
        "choice of crops (rded)",
        "relabelling",
        "training of conv1-width=32",
        "tests of conv1-width=32",
    ]
    assert (first.found, second.found) == ([], ["the teacher"])
    assert "the teacher" in first.disk
    assert "the teacher" not in second.disk


def test_statistics_are_measured_once_for_both_distillers():
    config = cifar10.get_config("distill=gvbsm+edc,ipc=1,teacher=conv1,student=conv1")
    config.teacher.width = 8
    first, second = plans(config)
    assert names(first).count("statistics of conv1-width=8") == 1
    assert "statistics of conv1-width=8" not in names(second)
    assert second.found == ["the teacher", "statistics of real images"]


def test_students_that_an_earlier_job_has_are_trained_once():
    config = digits.get_config("distill=random,student=conv1")
    config.variants = ("loss=kl", "loss=kl+gift", "loss=gift")
    first, second = plans(config)
    assert names(second) == names(first)[-2:]
    assert [p.stages[-2].times for p in (first, second)] == [1, 1]
    assert second.disk == {
        "checkpoints of students": first.disk["checkpoints of students"]
    }
    assert second.found == ["the teacher", "distilled images", "soft labels in float16"]


# --- Class-incremental training -----------------------------------------------------


def continual(teachers, orders=(0, 1), **options):
    config = digits.get_config("distill=rded,student=conv1,loss=kl,ipc=10,epochs=8")
    config.student.width = 8
    config.teacher.update(width=8, epochs=2)
    config.train.update(eval_every=4, **options)
    config.continual.update(steps=5, orders=orders, teachers=teachers)
    return config


def steps(found, name):
    return [stage.steps for stage in found.stages if stage.name == name]


def test_all_steps_of_a_class_incremental_training_are_one_plan():
    found = plan(continual("future+masked"))
    assert (found.orders, found.teachers) == (2, ("future", "masked"))
    for once in (
        "training of conv3-width=8, the teacher",
        "test of the teacher",
        "choice of crops (rded)",
    ):
        assert names(found).count(once) == 1
    # Of all classes, with those of 1,437 and 360 images.
    assert steps(found, "training of conv3-width=8, the teacher") == [2 * 12]
    # Both orders have a relabelling at each of the five steps for both columns.
    assert steps(found, "relabelling") == [2 * 8] * (2 * 5)
    # 20 to 100 images: in batches of 50.
    expected = [2 * 8 * n for n in (1, 1, 2, 2, 2)]
    assert steps(found, "training of conv1-width=8") == expected * 2
    assert steps(found, "tests of conv1-width=8") == [2 * 2] * 10
    assert found.disk["distilled images"] == 100 * 8 * 8
    assert found.disk["soft labels in float16"] == 2 * (
        2 * 8 * sum(20 * n * 10 for n in range(1, 6))
        + 2 * 8 * sum(20 * n * 2 * n for n in range(1, 6))
    )


def test_retrained_teachers_see_the_classes_so_far():
    found = plan(continual("retrained", orders=(3, 4, 5)))
    retrained = "training of conv3-width=8, the retrained teacher"
    # Each of the three orders has 287, 575, 862, 1,150 and 1,437 images.
    assert steps(found, retrained) == [3 * 2 * n for n in (3, 5, 7, 9, 12)]
    of_step = [stage for stage in found.stages if stage.name == retrained]
    outputs = [
        stage.arguments[0].params["classifier"]["bias"].shape for stage in of_step
    ]
    assert outputs == [(2 * n,) for n in range(1, 6)]
    tests = [s for s in found.stages if s.name == "test of the retrained teacher"]
    assert [s.per_device for s in tests] == [72 / 4, 144 / 4, 216 / 4, 288 / 4, 90]
    # rded asks the one of all classes, once.
    assert steps(found, "training of conv3-width=8, the teacher") == [2 * 12]
    # A class is a row of the classifier: 8 features and a bias.
    missing = [4 * (8 + 1) * (10 - 2 * n) for n in range(1, 6)]
    whole = found.disk["the teacher"]
    assert found.disk["the retrained teacher"] == 3 * (5 * whole - sum(missing))


def test_students_have_outputs_for_what_their_labels_know():
    found = plan(continual("future+masked", orders=(0,)))
    trained = [s for s in found.stages if s.name == "training of conv1-width=8"]
    logits = [stage.arguments[2].logits.shape for stage in trained]
    images = [20 * n for n in range(1, 6)]
    assert logits == [(n, 10) for n in images] + [(n, n // 10) for n in images]


def test_classes_that_cannot_be_divided_are_refused():
    config = cifar100.get_config("ipc=1,student=conv1")
    config.continual.update(steps=3, orders=(0,), teachers="masked")
    with pytest.raises(ValueError, match="by which 100 classes cannot be divided"):
        plan(config)


def test_the_study_is_one_plan_of_75_jobs():
    config = cifar100.get_config("student=conv1,teacher=conv1,distill=random,ipc=20")
    config.continual.update(steps=5, teachers="future+masked+retrained")
    config.train.seeds = (0, 1, 2)
    found = plan(config)
    times = {
        name: sum(stage.times for stage in same)
        for name, same in itertools.groupby(
            sorted(found.stages, key=lambda stage: stage.name), lambda s: s.name
        )
    }
    assert times == {
        "training of conv1, the teacher": 1,
        "test of the teacher": 1,
        "training of conv1, the retrained teacher": 25,
        "test of the retrained teacher": 25,
        "relabelling": 75,
        "training of conv1": 225,
        "tests of conv1": 75,
    }
