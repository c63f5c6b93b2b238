"""SRe2L's recovery as a PyTorch loop: what the official procedure does, for speed.

In every iteration the images, rolled, go through a frozen teacher, whose batch norms
tell by hooks how far the mean and variance of what they are fed are from their running
ones; the loss is cross-entropy and `bn_weight` times these distances, that of the first
layer tenfold; Adam with betas 0.5 and 0.9 moves the images at a rate that falls along a
cosine; and they are clipped to what pixels can be. Sources of the constants are in
`gift_jax.distill.recovery.sre2l`. Mean and variance are taken in one pass, which is
faster than the official code, which copies the features first.

As a command it recovers the images of `recovery_problem` once, and prints the seconds.
"""

import argparse
import math
import os
import random
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from experiments.benchmark import recovery_problem, torch_networks, workers
from gift_jax.data.preprocess import Normalization
from gift_jax.distill.recovery import sre2l
from gift_jax.runtime import allocator

FIRST_WEIGHT = 10.0


class Recovery:
    """A batch of images in recovery.

    Args:
        teacher: The teacher; its batch norms are hooked, and it is frozen here.
        images: (B, 3, H, W) float, normalised, to start from.
        labels: (B,) int64.
        normalization: Normalisation of the images.
        constants: Constants of the method; multi-crop is left out.
        memory_format: A key of `torch_networks.FORMATS`.
    """

    def __init__(
        self,
        teacher: nn.Module,
        images: torch.Tensor,
        labels: torch.Tensor,
        *,
        normalization: Normalization,
        constants: sre2l.Constants,
        memory_format: str,
    ) -> None:
        self._format = torch_networks.FORMATS[memory_format]
        self._teacher = teacher.to(memory_format=self._format)
        self._teacher.eval().requires_grad_(False)
        self._distances: list[torch.Tensor] = []
        for module in self._teacher.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_pre_hook(self._keep_distance)
        self._labels, self._constants = labels, constants
        mean, std = (
            torch.tensor(values).reshape(1, -1, 1, 1)
            for values in (normalization.mean, normalization.std)
        )
        self._range = -mean / std, (1 - mean) / std
        self._mean, self._std = mean, std
        self.images = images.clone(memory_format=self._format).requires_grad_()
        self._optimizer = torch.optim.Adam([self.images], betas=(0.5, 0.9))
        self._done = 0

    def _keep_distance(self, norm: nn.BatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3), correction=0)
        assert norm.running_mean is not None and norm.running_var is not None
        distance = (mean - norm.running_mean).norm()
        self._distances.append(distance + (variance - norm.running_var).norm())

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """The scalar that is minimised, for the given views of the images."""
        self._distances.clear()
        logits = self._teacher(images.contiguous(memory_format=self._format))
        first, *others = self._distances
        distance = FIRST_WEIGHT * first + sum(others)
        cross_entropy = F.cross_entropy(logits, self._labels)
        return cross_entropy + self._constants.bn_weight * distance

    def iteration(self) -> float:
        """One step of the images; returns the loss before it."""
        chosen = self._constants
        share = min(self._done / chosen.iterations, 1)
        rate = chosen.learning_rate * (1 + math.cos(math.pi * share)) / 2
        self._optimizer.param_groups[0]["lr"] = rate
        shifts = random.randint(*chosen.roll), random.randint(*chosen.roll)
        self._optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.images.roll(shifts, (2, 3)))
        loss.backward()
        self._optimizer.step()
        with torch.no_grad():
            self.images.clamp_(*self._range)
        self._done += 1
        return loss.item()

    def pixels(self) -> np.ndarray:
        """Pixels of the images, (B, H, W, 3) uint8."""
        pixels = self.images.detach() * self._std + self._mean
        rounded = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
        return rounded.permute(0, 2, 3, 1).numpy()


def teacher(width: int = 128) -> nn.Module:
    """The ConvNet of `recovery_problem.checkpoint`."""
    workload = recovery_problem.WORKLOAD
    network = torch_networks.ConvNet(
        int(workload.network.removeprefix("conv")),
        workload.num_classes,
        workload.image_size,
        width,
    )
    state = network.state_dict()
    head = f"{len(network) - 1}."
    for name, array in recovery_problem.checkpoint(width).items():
        own = name.removeprefix("features.").replace("classifier.", head)
        state[own] = torch.from_numpy(array)
    network.load_state_dict(state)
    return network


def start(network: nn.Module, memory_format: str, iterations: int) -> Recovery:
    """The batch of `recovery_problem` as noise."""
    shape = recovery_problem.INFO.image_shape
    constants = sre2l.Sre2l(1).constants(recovery_problem.INFO)
    return Recovery(
        network,
        torch.randn(len(recovery_problem.LABELS), shape[2], *shape[:2]),
        torch.from_numpy(recovery_problem.LABELS),
        normalization=recovery_problem.INFO.normalization,
        constants=constants._replace(iterations=iterations),
        memory_format=memory_format,
    )


def iterations(memory_format: str) -> workers.Run:
    """Iteration after iteration, some in a run."""
    constants = sre2l.Sre2l(1).constants(recovery_problem.INFO)
    recovery = start(teacher(), memory_format, constants.iterations)

    def run() -> int:
        for _ in range(recovery_problem.STEPS):
            recovery.iteration()
        return recovery_problem.STEPS

    return run


def main() -> None:
    """Recovers once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--memory-format", choices=torch_networks.FORMATS)
    parser.add_argument("--keep-freed-memory", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    if arguments.keep_freed_memory:
        allocator.keep_freed_memory()
    network = teacher()
    started = time.perf_counter()
    recovery = start(network, arguments.memory_format, arguments.iterations)
    for _ in range(arguments.iterations):
        recovery.iteration()
    recovery.pixels()
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main()
