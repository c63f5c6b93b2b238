"""Machines, and what steps cost them, against counts by hand."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from gift_jax import specs
from gift_jax.configs import cifar10
from gift_jax.plan import cost_model
from gift_jax.plan.workload import Workload
from tests.plan.planned import student_training, work

ROOT = pathlib.Path(__file__).resolve().parents[2]


def product(**changes):
    """A stage of steps that multiply 8x16 by 16x32 matrices."""
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((16, 32), (8, 16))]
    stage = cost_model.Stage(
        name="",
        step=lambda weights, inputs: inputs @ weights,
        arguments=tuple(shapes),
        steps=10,
        per_device=8,
        devices=2,
        dtype="float32",
        machine=cost_model.other_machine(devices=2, hosts=1, peak=1e4, memory=1.0),
    )
    return dataclasses.replace(stage, **changes)


def test_operations_are_those_of_all_devices():
    stage = product()
    assert stage.images == 16
    assert stage.flops == 2 * (2 * 8 * 16 * 32)
    assert stage.total_flops == 10 * stage.flops
    # The last two of ten steps have an eighth of the images.
    assert product(saved=2 * 7 / 8).total_flops == pytest.approx(8.25 * stage.flops)


def test_time_is_operations_over_the_peak_or_that_of_the_shortest_step():
    stage = product()  # 16,384 operations a step at 2 x 10,000 a second
    found = stage.seconds(utilization=0.5, least_step=0.0)
    assert found == pytest.approx(10 * 16_384 / 10_000)
    assert stage.seconds(utilization=0.5, least_step=2.0) == pytest.approx(20)


def test_repeated_stages_take_as_much_each():
    stage = product(saved=0.5, steps=10).repeated(3).repeated(2)
    assert (stage.times, stage.steps, stage.saved) == (6, 60, 3.0)
    assert stage.total_flops == 57 * stage.flops


def test_memory_is_that_of_all_that_are_there_at_once():
    weights, inputs, made = 4 * 16 * 32, 4 * 8 * 16, 4 * 8 * 32
    arguments, working = product(is_donated=False).memory
    assert arguments == weights + inputs
    assert made <= working < 2 * made + 64
    stage = product(is_donated=False, at_once=3, resident=1_000)
    assert stage.memory == (3 * weights + inputs, 3 * working)
    assert stage.needed_memory == 3 * weights + inputs + 3 * working + 1_000


def test_a_donated_argument_is_written_over():
    def step(weights, inputs):
        return weights + inputs.sum()

    kept = product(step=step, is_donated=False).memory[1]
    assert kept - product(step=step).memory[1] == 4 * 16 * 32


def test_memory_is_that_of_the_whole_loop():
    (weights, inputs) = product().arguments
    more = jax.ShapeDtypeStruct((80, 16), jnp.float32)
    stage = product(is_donated=False, whole=(weights, more))
    assert stage.flops == product().flops
    assert stage.memory[0] == 4 * (16 * 32 + 80 * 16)
    assert stage.arguments == (weights, inputs)


def test_the_largest_stage_is_found_by_one_compilation_a_program():
    small, large = (
        product(name=str(n), program="p", per_device=n, is_donated=False)
        for n in (1, 2)
    )
    other = product(name="other", resident=500, is_donated=False)
    assert cost_model.largest([small, large, other]) is other
    assert "memory" not in vars(small)
    heavy = product(name="3", program="p", per_device=3, resident=501, is_donated=False)
    assert cost_model.largest([small, heavy, large, other]) is heavy


# --- A training step of ConvNet-3 ---------------------------------------------------


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
    chip = cost_model.Chip(platform, {"float32": 1e12}, 16e9, 1)
    (spec,) = specs.expand(cifar10.get_config("ipc=5"))
    one = cost_model.Machine("one", chip, hosts=1, devices=1)
    stage = student_training(Workload(spec, one))
    assert stage.images == 50
    pixels = 2 * (3 * 32 - 2) ** 2 * 3 * 128
    expected = 50 * (3 * conv3_forward(padding=False) - pixels)
    # Normalisation, activation, pooling, augmentation and AdamW come on top.
    assert 1 < stage.flops / expected < 1.02
    # The textbook counts products with padding as well.
    assert 3 * 50 * conv3_forward(padding=True) == pytest.approx(15.2e9, rel=0.005)


@pytest.mark.slow
def test_operations_are_proportional_to_the_images_of_a_step():
    one, two = (
        student_training(work(cifar10.get_config(f"ipc=50,batch_size={size}")))
        for size in (64, 128)
    )
    assert two.flops / one.flops == pytest.approx(2, rel=0.02)  # AdamW is not
    # 500 images are 7 batches of 64 and 52 more, or 3 of 128 and 116 more.
    assert (one.steps, two.steps) == (8_000, 4_000)
    # On 4 devices each computes all of these, as if the batch were four times larger.
    assert one.total_flops / one.flops == pytest.approx(1000 * (7 + 52 / 16))
    assert two.total_flops / two.flops == pytest.approx(1000 * (3 + 116 / 32))


@pytest.mark.slow
def test_memory_of_a_training_step():
    config = cifar10.get_config("student.width=16,ipc=50,batch_size=10")
    config.augment.diffaug = "flip"  # compiled much faster than the whole
    machine = cost_model.other_machine(devices=1, hosts=1, peak=1e12, memory=16e9)
    (spec,) = specs.expand(config)
    stage = student_training(Workload(spec, machine))
    arguments, working = stage.memory
    weights = 4 * sum(leaf.size for leaf in jax.tree.leaves(stage.arguments[0].params))
    # Weights and both moments of AdamW; pixels, labels and logits.
    expected = 3 * weights + 500 * (32 * 32 * 3 + 4 + 2 * 10)
    assert arguments == pytest.approx(expected, rel=0.02)
    # At least what the backward pass reads: the input of every convolution but the
    # first, and what was normalised.
    kept = 4 * 10 * 16 * (2 * 32**2 + 2 * 16**2 + 2 * 8**2)
    assert kept < working < 6 * kept


RUN = r"""
import re
import jax, jax.numpy as jnp
from gift_jax.configs import cifar10
from gift_jax import specs
from gift_jax.plan import cost_model, stages, workload

(spec,) = specs.expand(cifar10.get_config("ipc=50"))
machine = cost_model.other_machine(devices=1, hosts=1, peak=1e12, memory=16e9)
work = workload.Workload(spec, machine)
(network,) = work.trainings
stage = stages.student_training(work, network)
planned = stage.memory[1]
compiled = stage._traced(stage.arguments, donate_argnums=0).lower().compile()

def zeros(shape):
    is_key = jnp.issubdtype(shape.dtype, jax.dtypes.prng_key)
    return jax.random.key(0) if is_key else jnp.zeros(shape.shape, shape.dtype)

def status(field):
    text = open("/proc/self/status").read()
    return 1024 * int(re.search(field + r":\s+(\d+)", text)[1])

arguments = jax.block_until_ready(jax.tree.map(zeros, stage.arguments))
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # the peak from here on
jax.block_until_ready(compiled(*arguments))
print(planned, status("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/clear_refs").exists(), reason="Linux")
def test_planned_memory_is_near_the_measured():
    found = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    planned, measured = map(int, found.stdout.split())
    assert 0.6 < planned / measured < 1.4


# --- Machines -----------------------------------------------------------------------


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
