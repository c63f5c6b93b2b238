"""The text of `gift_jax.plan`."""

import dataclasses

import jax
import jax.numpy as jnp

from gift_jax.configs import cifar10, common
from gift_jax.plan import cost_model
from gift_jax.plan.text import report, total
from tests.plan.planned import plan

ASSUMED = {"utilization": 0.3, "least_step": 1e-3}


def test_the_report_needs_no_data_and_leaves_no_array():
    config = common.get_config("tiny_imagenet")
    config.teacher.update(name="conv2", width=8, checkpoint="weights.pth")
    config.distilled.name = "random"
    config.student.name = "conv2"
    config.student.width = 8
    config.augment.diffaug = "flip"  # compiled much faster than the whole
    config.train.seeds, config.train.students_at_once = (0, 1), 2
    config.train.evaluators = "accuracy+builtins:print"
    before = jax.live_arrays()
    found = plan(config)
    text = report(found, **ASSUMED)
    # Those of other tests may go meanwhile.
    assert {id(a) for a in jax.live_arrays()} <= {id(a) for a in before}
    assert "tiny_imagenet: 200 classes, 64x64x3, 10,000 test images" in text
    # Convolutions, their biases and batch norm, and the classifier.
    weights = 9 * (3 + 8) * 8 + 3 * 2 * 8 + (16 * 16 * 8 + 1) * 200
    assert f"student     conv2-width=8: {weights:,} parameters, float32" in text
    left_out = "not counted, as it is not known what it does: the evaluator builtins"
    assert text.count("not counted") == text.count(left_out) == 1
    assert "an estimate, assuming 30% of 275 TFLOP/s" in text
    # 300 views of 2,000 images, and as many pixels as an image has; 10,000 test images
    # are a quarter each on four devices.
    assert "   800 MB  soft labels in float16\n" in text
    assert "24.6 MB  distilled images\n" in text
    assert "training of conv2-width=8, 2 times " in text
    assert "stages: training of conv2-width=8, 2 at once\n" in text
    assert "30.7 MB  what else stays there" in text
    needed = found.stages[-2].needed_memory
    assert f"{needed / 32e9:.0%} of 32 GB\n" in text
    assert (
        text.endswith("of distilled images as float32") and ": 98.3 MB of dist" in text
    )


def product(name, images, **changes):
    """A stage of steps that multiply by a 16x32 matrix."""
    return cost_model.Stage(
        name,
        lambda weights, inputs: inputs @ weights,
        tuple(jax.ShapeDtypeStruct(s, jnp.float32) for s in ((16, 32), (images, 16))),
        per_device=images,
        devices=1,
        dtype="float32",
        machine=cost_model.other_machine(devices=1, hosts=1, peak=1e9, memory=1e9),
        is_donated=False,
        **changes,
    )


def made_of(*stages, **changes):
    config = cifar10.get_config("distill=dm,student=conv1")
    config.student.width = 8
    found = dataclasses.replace(plan(config), stages=list(stages))
    return dataclasses.replace(found, **changes)


def test_stages_of_one_name_are_a_row():
    found = made_of(
        product("training", 1_000, steps=3),
        product("other", 10, steps=1, resident=10**9),
        product("training", 4_000, steps=5, times=2),
        disk={"experts": 2_000, "distilled images": 0, "soft labels": 3_000},
        found=["the teacher"],
    )
    text = report(found, utilization=0.5)
    row = next(line for line in text.splitlines() if line.startswith("training,"))
    # 1,024 operations an image: 23 thousand images at half of 1 GFLOP/s.
    expected = "training, 3 times 1 1,000-4,000 8 0.0 2.36e-08 0.047 s"
    assert row.split() == expected.split()
    assert "\nmade by a plan above: the teacher\n" in text
    assert "disk, before compression\n       3 kB  soft labels\n       2 kB" in text
    assert "       5 kB  in all" in text
    assert "distilled images\n" not in text
    # The train split of CIFAR-10.
    assert "most of all stages: other\n" in text
    assert text.endswith("memory of the host in distillation: 154 MB of train images")


def test_the_sum_of_plans():
    one = made_of(product("a", 1_000, steps=3), disk={"experts": 2_000})
    two = made_of(product("a", 4_000, steps=5), disk={"experts": 10, "labels": 90})
    found = total([one, two], utilization=0.5)
    assert found == "2 plans: 0.047 s and at most 2.1 kB on disk in all"


def test_a_class_incremental_training_is_told_of():
    config = cifar10.get_config("distill=random,student=conv1,teacher=conv1")
    config.continual.update(steps=5, orders=(0, 7), teachers="future+masked")
    found = dataclasses.replace(plan(config), stages=[product("a", 10, steps=1)])
    text = report(found, **ASSUMED)
    assert "distilled   random, IPC 10: 100 images" in text
    assert "5 steps, orders of classes: 2, labels: future, masked\n" in text
