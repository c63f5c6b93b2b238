"""The two recoveries of the benchmark compute the same, and what is said of them."""

import functools
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments.benchmark import extrapolation, measure, recovery, recovery_ours
from experiments.benchmark import recovery_problem as problem
from gift_jax.distill.recovery import loop, sre2l

WIDTH, ITERATIONS = 16, 4


def test_pytorch_and_this_package_have_the_same_losses():
    """Of some iterations, so that Adam, its rate and clipping are compared, too."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from experiments.benchmark import recovery_official

    official = sre2l.Sre2l(1).constants(problem.INFO)
    still = official._replace(iterations=ITERATIONS, roll=(0, 0))
    shape = (len(problem.LABELS), *problem.INFO.image_shape)
    images = np.random.default_rng(1).normal(size=shape).astype(np.float32)

    theirs = recovery_official.Recovery(
        recovery_official.teacher(WIDTH),
        torch.from_numpy(images.transpose(0, 3, 1, 2)),
        torch.from_numpy(problem.LABELS),
        normalization=problem.INFO.normalization,
        constants=still,
        memory_format="channels_last",
    )
    expected = [theirs.iteration() for _ in range(ITERATIONS)]

    network = recovery_ours.teacher(WIDTH)
    method = recovery_ours.method(network, ITERATIONS)
    objective = sre2l.objective(network, still)
    step = jax.jit(functools.partial(loop.step, objective=objective, method=method))
    state, found = method.start(images), []
    for iteration in range(ITERATIONS):
        state, terms = step(
            state, jax.random.key(0), problem.LABELS, network.variables, iteration
        )
        found.append(float(sum(terms.values())))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert found[-1] < 0.9 * found[0]
    pixels = problem.INFO.normalization.invert(np.asarray(state.images))
    apart = np.rint(np.clip(pixels, 0, 1) * 255) - theirs.pixels()
    assert (np.abs(apart) > 1).mean() < 0.01  # where a gradient's sign is a coin's


def test_both_recover_what_is_counted():
    """100 images, as the official code has, of the network that is counted."""
    network = recovery_ours.teacher()
    method = recovery_ours.method(network, 7)
    (batch,) = loop.make_batches(problem.INFO.num_classes, problem.IPC, method)
    assert len(batch) == len(problem.LABELS) == problem.WORKLOAD.batch_size
    here = extrapolation.measured()
    assert here.iterations == sre2l.Sre2l(1).constants(problem.INFO).iterations
    layers = [
        2 * 32 * 32 * 9 * 3 * 128,
        2 * 16 * 16 * 9 * 128 * 128,
        2 * 8 * 8 * 9 * 128 * 128,
        2 * 2048 * 10,
    ]
    # There and back to the images, none to the weights; XLA leaves out what meets
    # padding and adds what is not a product.
    assert 0.9 < here.flops / (2 * 100 * sum(layers)) < 1.1


@pytest.mark.slow
def test_imagenet_is_counted():
    there = extrapolation.target()
    assert there.iterations == 100 * 4000
    # 1.814 billion multiply-adds of torchvision's ResNet-18, there and back.
    assert there.flops == pytest.approx(100 * 2 * 2 * 1.814e9, rel=0.05)


def test_the_extrapolation_goes_by_operations(monkeypatch):
    counts = {"measured": (2e9, 7), "target": (100e9, 86_400)}
    for name, count in counts.items():
        found = functools.partial(extrapolation.Recovery, *count)
        monkeypatch.setattr(extrapolation, name, found)
    text = extrapolation.text({"one": 0.5, "other": 1.0})
    assert text.startswith("**Extrapolated, not measured.**")
    assert "| one | 4.0 | 25.0 |\n| other | 2.0 | 50.0 |" in text
    # 5 * 8.64e15 operations in 29 hours.
    assert "are 0.4 TFLOP/s by the same count, 5.8 h for IPC 10" in text


def test_the_tables_state_ratios_within_a_round():
    label = measure.PYTORCH[0]
    seconds = {recovery.OURS: [1.0, 2.0, 4.0], label: [2.0, 8.0, 12.0]}
    results = {
        "machine": "one",
        "iteration": seconds,
        "iterations": 7,
        "whole": {recovery.OURS: [5.0]},
        "extrapolation": "and elsewhere",
    }
    text = recovery.markdown(results)
    assert f"| {label} | 8.000 [5.000, 10.000] | 3.00 [2.50, 3.50] |" in text
    assert "| a whole recovery of 7 iterations, rounds: 1 | s | over ours |" in text
    assert f"| {recovery.OURS} | 5.000 [5.000, 5.000] |  |" in text
    assert text.endswith("\n\nand elsewhere\n")


@pytest.mark.slow
def test_a_whole_recovery_runs_by_itself():
    command = [sys.executable, "-m", "experiments.benchmark.recovery_ours"]
    command += ["--iterations=1"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(r"\d+\.\d+\n", shown)
