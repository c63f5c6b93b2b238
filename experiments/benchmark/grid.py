"""A whole small grid as two commands: this package's, and a PyTorch loop's.

Three optimizers, two losses, two seeds: ConvNet-3 of width 128 on 100 images of 32x32
with batches of 50 and four evaluations each. Images are random, as only time counts.
What is timed is the command from its start to its end, with compilation, relabelling
and evaluation; the teacher is there before.
"""

import argparse
import functools
import itertools
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

from experiments.benchmark.rounds import Samples, in_turn
from gift_jax.runtime.cores import usable_cores

OPTIMIZERS = ("sgd", "adam", "adamw")
LOSSES = ("kl", "gift")
SEEDS = (0, 1)
CLASSES, PER_CLASS, TEST_PER_CLASS, SIDE = 10, 10, 100, 32

OURS, PYTORCH = "ours", "PyTorch"


def seconds(*, epochs: int, rounds: int, pytorch: bool) -> Samples:
    """Seconds of the grids in every round, by `OURS` and `PYTORCH`.

    Args:
        epochs: Epochs of every student.
        rounds: How often each is timed.
        pytorch: Whether the PyTorch loop takes part.
    """
    contenders = {OURS: functools.partial(_ours, epochs)}
    if pytorch:
        contenders[PYTORCH] = functools.partial(_official, epochs)
    return in_turn(contenders, rounds=rounds)


def _ours(epochs: int) -> float:
    with tempfile.TemporaryDirectory() as directory:
        return _ours_in(pathlib.Path(directory), epochs)


def _ours_in(directory: pathlib.Path, epochs: int) -> float:
    _fabricate(directory / "images")
    command = [
        *(sys.executable, "-m", "gift_jax.main"),
        f"--config=configs/common.py:folder:{directory / 'images'}",
        f"--workdir={directory / 'workdir'}",
        "--config.teacher.epochs=1",
        "--config.teacher.min_accuracy=0.0",
        "--config.distilled.name=random",
        f"--config.distilled.ipc={PER_CLASS}",
    ]
    preparation = ["--config.relabel.source=online", "--config.train.epochs=1"]
    # What it compiles is not found again by the grid that is timed.
    apart = {"JAX_COMPILATION_CACHE_DIR": str(directory / "preparation")}
    subprocess.run(
        [*command, *preparation],
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | apart,
    )
    grid = [
        f"--config.optimizer.name={'+'.join(OPTIMIZERS)}",
        f"--config.loss.name={'+'.join(LOSSES)}",
        f"--config.train.seeds={SEEDS}",
        f"--config.train.epochs={epochs}",
    ]
    return _seconds([*command, *grid])


def _official(epochs: int) -> float:
    command = (sys.executable, "-m", "experiments.benchmark.grid")
    return _seconds([*command, f"--epochs={epochs}"])


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def _fabricate(root: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", PER_CLASS), ("val", TEST_PER_CLASS)):
        for label in range(CLASSES):
            folder = root / split / f"{label:05d}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:03d}.png")


def _run_official(epochs: int) -> None:
    """The grid with an online teacher, in this process."""
    import torch

    from experiments.benchmark import official as protocol

    torch.set_num_threads(usable_cores())
    images = torch.randn(CLASSES * PER_CLASS, 3, SIDE, SIDE)
    labels = torch.arange(len(images)) % CLASSES
    test_images = torch.randn(CLASSES * TEST_PER_CLASS, 3, SIDE, SIDE)
    test_labels = torch.arange(len(test_images)) % CLASSES
    losses = {"kl": protocol.kl, "gift": protocol.gift}
    for optimizer, loss, seed in itertools.product(OPTIMIZERS, LOSSES, SEEDS):
        torch.manual_seed(seed)
        training = protocol.Training(
            "conv3",
            images,
            labels,
            num_classes=CLASSES,
            batch_size=50,
            memory_format="channels_last",
            loss=losses[loss],
            optimizer=optimizer,
        )
        for epoch in range(1, epochs + 1):
            training.epoch()
            if epoch % max(epochs // 4, 1) == 0:
                accuracy = training.evaluate(test_images, test_labels)
                print(optimizer, loss, seed, epoch, f"{accuracy:.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, required=True)
    _run_official(parser.parse_args().epochs)
