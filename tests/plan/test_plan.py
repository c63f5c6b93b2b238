"""Tests of `gift_jax.plan` and the modules behind it against counts by hand."""

import functools
import os
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from configs import cifar10, common, imagenet1k, imagenet1k_resnet18
from gift_jax.evaluators.accuracy import RESIDENT_BYTES
from gift_jax.plan import __main__ as plan
from gift_jax.plan import cost_model, stage_costs, workload
from gift_jax.runtime import hosts
from gift_jax.specs import settings
from gift_jax.train import batches

ROOT = pathlib.Path(__file__).resolve().parents[2]


def work(config, name="v4-8"):
    (single,) = settings.expand(config)
    return workload.Workload(single, cost_model.machine(name))


def stages(config, name="v4-8"):
    return {stage.name: stage for stage in stage_costs.stages(work(config, name))}


@functools.cache
def one_device():
    return cost_model.other_machine(devices=1, hosts=1, peak=1e12, memory=16e9)


# --- Operations ---------------------------------------------------------------------


def conv3_forward(width=128, classes=10, *, padding):
    """Operations of ConvNet-3 on one 32x32 image: two a multiply-add."""

    def products(side):  # of a 3x3 kernel along one axis
        return 3 * side if padding else 3 * side - 2

    total, channels = 0, 3
    for side in (32, 16, 8):
        total += products(side) ** 2 * channels * width
        channels = width
    return 2 * (total + 4 * 4 * width * classes)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_a_training_step_of_conv3_has_the_operations_counted_by_hand(platform):
    """Forward, and as much for either gradient but that of the pixels."""
    step, arguments = stage_costs.training_step(
        work(cifar10.get_config("ipc=50")), "conv3"
    )
    *rest, indices = arguments
    arguments = (*rest, jax.ShapeDtypeStruct((50,), indices.dtype))
    pixels = 2 * (3 * 32 - 2) ** 2 * 3 * 128
    expected = 50 * (3 * conv3_forward(padding=False) - pixels)
    found = cost_model.flops(step, *arguments, platform=platform)
    # Normalisation, activation, pooling, augmentation and AdamW come on top.
    assert 1 < found / expected < 1.02
    # The textbook counts products with padding as well.
    assert 3 * 50 * conv3_forward(padding=True) == pytest.approx(15.2e9, rel=0.005)


def test_operations_are_proportional_to_the_images_of_a_step():
    one, two = (
        stage_costs._training(
            work(cifar10.get_config(f"ipc=50,batch_size={size}")), "conv3", 1
        )
        for size in (64, 128)
    )
    assert two.flops / one.flops == pytest.approx(2, rel=0.02)  # AdamW is not
    assert (one.steps, two.steps) == (7813, 3907)


def test_resnet18_on_imagenet():
    found = stages(imagenet1k_resnet18.get_config())
    # 1.82 G multiply-adds by torchvision's table, padding included.
    per_image = found["test of the teacher"].flops / 500
    assert 0.9 * 2 * 1.82e9 < per_image < 2 * 1.82e9
    training = found["training of resnet18"]
    assert training.flops / training.images == pytest.approx(3 * per_image, rel=0.04)
    assert (training.steps, training.images, training.devices) == (30_000, 100, 4)
    relabelling = found["relabelling"]
    assert relabelling.steps == int(np.ceil(3_000_000 / 256))
    assert relabelling.flops / relabelling.images == pytest.approx(per_image, rel=0.1)
    assert found["tests of resnet18"].steps == 4 * 100
    assert found["choice of crops (rded)"].steps == int(np.ceil(1_500_000 / 256))


# --- What is run how often ----------------------------------------------------------


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
    config.relabel.source = "online"
    config.train.seeds = (0, 1, 2)
    config.student.name = "conv2+conv3"
    config.loss.name = "kl+gift"
    found = stages(config)
    assert list(found) == [
        "test of the teacher",
        "relabelling",
        "training of conv2, 6 times",
        "tests of conv2",
        "training of conv3, 6 times",
        "tests of conv3",
    ]
    images = 12 * config.train.epochs * 10 * config.distilled.ipc
    relabelling = found["relabelling"]
    assert relabelling.steps == int(np.ceil(images / relabelling.images))


def test_tuning_adds_trainings_and_takes_images_from_the_teacher():
    config = cifar10.get_config("tuning.enabled=True")
    tuned = work(config)
    assert tuned.trainings == {"conv3": 2 + 5}
    assert tuned.train_images == 45_000


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("v4-8", "", 4),
        ("8xh100", "", 5),
        ("8xh100", "batch_size=128", 8),
        ("v5e-64", "batch_size=128", 64),
    ],
)
def test_devices_of_a_training_are_those_the_job_takes(
    monkeypatch, name, options, expected
):
    planned = work(imagenet1k.get_config(options), name)
    assert planned.training_devices == expected
    monkeypatch.setattr(hosts, "count", lambda: planned.machine.hosts)
    monkeypatch.setattr(hosts, "devices", lambda local: local * hosts.count())
    local = tuple(range(planned.machine.host_devices))
    assert len(batches.devices_for(planned.batch_size, local)) == expected


def test_batches_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="official batch of 100 does not divide"):
        _ = work(imagenet1k.get_config(), "v5e-64").training_devices
    with pytest.raises(ValueError, match="100 does not divide over 64 devices"):
        _ = work(imagenet1k.get_config("batch_size=100"), "v5e-64").training_devices


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


def test_memory_of_a_training_step():
    config = cifar10.get_config("student.width=16,ipc=50,batch_size=10")
    planned = workload.Workload(next(settings.expand(config)), one_device())
    memory = stage_costs.memory(planned, "conv3")
    state = stage_costs.training_step(planned, "conv3")[1][0]
    weights = 4 * sum(leaf.size for leaf in jax.tree.leaves(state.params))
    # Weights and both moments of AdamW; pixels, labels and logits.
    expected = 3 * weights + 500 * (32 * 32 * 3 + 4 + 2 * 10)
    assert memory.arguments == pytest.approx(expected, rel=0.02)
    # At least what the backward pass reads: the input of every convolution but the
    # first, and what was normalised.
    kept = 4 * 10 * 16 * (2 * 32**2 + 2 * 16**2 + 2 * 8**2)
    assert kept < memory.working < 6 * kept


RUN = """
    import re, sys
    import jax, jax.numpy as jnp
    from configs import cifar10
    from gift_jax import cost_model, settings, stage_costs, workload

    config = next(settings.expand(cifar10.get_config("ipc=50")))
    machine = cost_model.other_machine(devices=1, hosts=1, peak=1e12, memory=16e9)
    work = workload.Workload(config, machine)
    step, shapes = stage_costs.training_step(work, "conv3")
    planned = cost_model.memory(step, *shapes)
    compiled = cost_model._traced(step, shapes, donate=0).lower().compile()

    def zeros(shape):
        is_key = jnp.issubdtype(shape.dtype, jax.dtypes.prng_key)
        return jax.random.key(0) if is_key else jnp.zeros(shape.shape, shape.dtype)

    def status(field):
        text = open("/proc/self/status").read()
        return 1024 * int(re.search(field + r":\\\\s+(\\\\d+)", text)[1])

    arguments = jax.block_until_ready(jax.tree.map(zeros, shapes))
    before = status("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")  # the peak from here on
    jax.block_until_ready(compiled(*arguments))
    print(planned.working, status("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/clear_refs").exists(), reason="Linux")
def test_planned_memory_is_near_the_measured():
    code = "\n".join(line[4:] for line in RUN.splitlines()).replace("\\\\", "\\")
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    planned, measured = map(int, found.stdout.split())
    assert 0.6 < planned / measured < 1.4


# --- Machines and the command -------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "devices", "num_hosts"),
    [
        ("v4-8", 4, 1),
        ("v4-32", 16, 4),
        ("v5e-1", 1, 1),
        ("v5e-8", 8, 1),
        ("v5e-64", 64, 16),
        ("8xh100", 8, 1),
        ("16xh100", 16, 2),
    ],
)
def test_machines_by_name(name, devices, num_hosts):
    found = cost_model.machine(name)
    assert (found.devices, found.hosts) == (devices, num_hosts)
    assert found.host_devices * found.hosts == devices


def test_an_unknown_machine_is_named():
    with pytest.raises(ValueError, match="v6x-4"):
        cost_model.machine("v6x-4")
    with pytest.raises(ValueError, match="7 devices"):
        cost_model.other_machine(devices=7, hosts=2, peak=1.0, memory=1.0)


def test_time_is_operations_over_the_peak_or_that_of_the_shortest_step():
    stage = stage_costs.Stage("", steps=10, images=1, flops=6e12, devices=2, peak=1e13)
    assert stage.seconds(utilization=0.3, least_step=0.0) == pytest.approx(10)
    assert stage.seconds(utilization=0.3, least_step=2.0) == pytest.approx(20)


def test_the_report_needs_no_data_and_leaves_no_array():
    config = common.get_config("tiny_imagenet")
    config.teacher.checkpoint = "weights.pth"
    config.student.name = "conv2"
    config.student.width = 8
    before = len(jax.live_arrays())
    text = plan.report(work(config), utilization=0.3, least_step=1e-3)
    assert len(jax.live_arrays()) == before
    assert "tiny_imagenet: 200 classes, 64x64x3, 10,000 test images" in text
    # Convolutions, their biases and batch norm, and the classifier.
    weights = 9 * (3 + 8) * 8 + 3 * 2 * 8 + (16 * 16 * 8 + 1) * 200
    assert f"student     conv2: {weights:,} parameters, float32" in text
    assert "an estimate, assuming 30% of 275 TFLOP/s" in text
    assert re.search(r"\d% of 32\.0 GB$", text)


def test_a_dataset_of_unknown_size_is_refused():
    with pytest.raises(ValueError, match="folder:somewhere"):
        _ = work(common.get_config("folder:somewhere")).info


def test_the_command_names_mistakes():
    command = "-m gift_jax.plan --config=configs/digits.py --device=abacus"
    found = subprocess.run(
        [sys.executable, *command.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 1
    assert found.stderr.startswith("error: unknown device 'abacus'")
