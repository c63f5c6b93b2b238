"""Sums that XLA computes wrongly on CPUs, and the flag that keeps it from that."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax import augment, labels, losses, models
from gift_jax.data.preprocess import Normalization
from gift_jax.evaluators import accuracy
from gift_jax.runtime import xla
from tests import launch

PROGRAM = """
import logging, os, sys
import jax, jax.numpy as jnp, numpy as np
from gift_jax.runtime import xla

logging.basicConfig()
if sys.argv[1] == "late":
    jnp.zeros(1)
if sys.argv[1] == "unknown":
    xla._FLAG = "--xla_cpu_that_no_version_knows"
print(xla.leave_reductions_out_of_fusions(), os.environ.get("XLA_FLAGS"))
rows = np.random.default_rng(0).normal(size=(2048, 10)).astype(np.float32)

def energies(s):
    return jnp.sum((s @ jnp.full((10, 10), 0.1)) * s, 1)

print(np.abs(jax.jit(energies)(rows) - energies(rows)).max() < 1e-4)
"""
REDUCE = "--xla_cpu_experimental_ynn_fusion_type=-reduce"


def outcome(mode, flags):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    command = [sys.executable, "-c", PROGRAM, mode]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment
    )


def test_sums_are_right_and_other_flags_stay():
    given = "--xla_force_host_platform_device_count=2"
    expected = f"True {given} {REDUCE}\nTrue\n"
    assert outcome("early", given).stdout == expected


def test_too_late_is_said():
    done = outcome("late", "")
    assert done.stdout.startswith("False")
    assert done.stderr.count("too late") == 1


def test_what_xla_does_not_know_is_not_given():  # it would end the process
    assert outcome("unknown", "").stdout.startswith("True \n")


@pytest.mark.parametrize(
    ("flags", "expected"), [(f"--a {REDUCE[:-7]}", True), ("/flags.txt", False)]
)
def test_what_the_user_set_stays(monkeypatch, flags, expected):
    monkeypatch.setattr(xla.xla_bridge, "backends_are_initialized", lambda: False)
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert xla.leave_reductions_out_of_fusions() is expected
    assert os.environ["XLA_FLAGS"] == flags


# --- What XLA compiles against what it computes operation by operation ----------------

ROWS, CLASSES = 1100, 10


def draw(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def assert_jit_changes_nothing(function, *arguments):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        jax.jit(function, compiler_options=launch.AS_USERS)(*arguments),
        function(*arguments),
    )


@pytest.mark.parametrize("name", losses.LOSS_NAMES)
@pytest.mark.parametrize("mapped", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_losses_and_gradients(name, mapped):
    def total(student, teacher, hard):
        return jnp.sum(losses.get_loss(name)(student, teacher, hard))

    function = jax.value_and_grad(total)
    for _ in range(mapped):
        function = jax.vmap(function)
    shape = (2,) * mapped + (ROWS,)
    logits = draw(2, *shape, CLASSES)
    hard = jnp.arange(np.prod(shape)).reshape(shape) % CLASSES
    assert_jit_changes_nothing(function, logits[0], 1 + logits[1], hard)


def test_refined_labels():
    hard = jnp.arange(ROWS) % CLASSES
    assert_jit_changes_nothing(labels.refine_labels, draw(ROWS, CLASSES), hard)


def test_evaluation():
    model = models.create_model("conv1", num_classes=CLASSES, image_size=8, width=8)
    variables = models.init_variables(model, jax.random.key(0), image_size=8)
    pixels = np.random.default_rng(0).integers(0, 256, (1, ROWS, 8, 8, 3), np.uint8)

    def step(variables, images, hard):
        transform = Normalization((0.5,) * 3, (0.25,) * 3)
        logits = model.apply(variables, transform.apply(images / 255.0), train=False)
        return logits, accuracy.count_hits(logits, hard)

    over_devices = jax.vmap(step, (None, 0, 0), axis_name="batch")
    hard = jnp.arange(ROWS)[None] % CLASSES
    assert_jit_changes_nothing(over_devices, variables, pixels, hard)


@pytest.mark.slow
def test_augmentation():
    spec = augment.AugmentSpec(diffaug="color_crop_cutout_flip_scale_rotate")
    images, key = draw(ROWS, 8, 8, 3), jax.random.key(0)
    assert_jit_changes_nothing(
        lambda x: augment.make_views(key, x, 3, jnp.arange(ROWS), spec), images
    )
