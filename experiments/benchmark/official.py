"""The worker with the PyTorch contenders: the official protocol, written for speed.

A frozen teacher labels every augmented batch; the student follows it with the GIFT
loss under AdamW (https://github.com/LINs-lab/GIFT, validate/evaluator_benchmark.py).
Images stay in memory, nothing is read back in a step, AdamW is the fused one, and all
processors are used.

- channels_last and contiguous: epochs with either memory format;
- recovery, and a memory format: iterations of `recovery_official`;
- gemm: a product of two 2048 x 2048 matrices.
"""

import math
import os
import random
import sys
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from experiments.benchmark import torch_networks, workers
from gift_jax.runtime import allocator

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def gift(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """One minus the mean cosine to teacher logits refined by the label."""
    classes = student.shape[1]
    smoothed = torch.full_like(teacher, 0.1 / (classes - 1))
    smoothed.scatter_(1, labels[:, None], 0.9)
    refined = F.normalize(teacher) + 0.1 * F.normalize(smoothed)
    return 1 - F.cosine_similarity(student, refined).mean()


def kl(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """KL divergence at temperature 20."""
    del labels
    return F.kl_div(
        F.log_softmax(student / 20, 1),
        F.softmax(teacher / 20, 1),
        reduction="batchmean",
    )


def diffaug(images: torch.Tensor) -> torch.Tensor:
    """DiffAug with color_crop_cutout_flip_scale_rotate, as utils/transforms.py."""
    flips, shifts, saturations, contrasts = torch.rand(
        (4, len(images), 1, 1, 1), device=images.device
    )
    images = torch.where(flips < 0.5, images.flip(3), images)
    images = images + (shifts - 0.5)
    mean = images.mean(1, keepdim=True)
    images = (images - mean) * (2 * saturations) + mean
    mean = images.mean((1, 2, 3), keepdim=True)
    images = (images - mean) * (contrasts + 0.5) + mean
    images = random.choice((_crop, _scale, _rotate))(images)
    return images * _cutout_mask(images)


def _crop(images: torch.Tensor) -> torch.Tensor:
    batch, side, device = len(images), images.shape[2], images.device
    most = int(side * 0.125 + 0.5)
    corner = torch.randint(0, 2 * most + 1, (2, batch, 1), device=device)
    rows, columns = corner + torch.arange(side, device=device)
    padded = F.pad(images, (most,) * 4)
    which = torch.arange(batch, device=device)[:, None, None]
    taken = padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None]]
    return taken.permute(0, 3, 1, 2)


def _scale(images: torch.Tensor) -> torch.Tensor:
    factors = torch.empty(2, len(images), device=images.device).uniform_(1 / 1.2, 1.2)
    matrix = torch.zeros(len(images), 2, 3, device=images.device)
    matrix[:, 0, 0], matrix[:, 1, 1] = factors
    return _warp(images, matrix)


def _rotate(images: torch.Tensor) -> torch.Tensor:
    angle = torch.empty(len(images), device=images.device)
    angle.uniform_(-math.pi / 12, math.pi / 12)
    matrix = torch.zeros(len(images), 2, 3, device=images.device)
    matrix[:, 0, 0] = matrix[:, 1, 1] = angle.cos()
    matrix[:, 1, 0] = angle.sin()
    matrix[:, 0, 1] = -matrix[:, 1, 0]
    return _warp(images, matrix)


def _warp(images: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _cutout_mask(images: torch.Tensor) -> torch.Tensor:
    batch, side, device = len(images), images.shape[2], images.device
    size = int(side * 0.5 + 0.5)
    shape = (2, batch, 1)
    first = torch.randint(0, side + 1 - size % 2, shape, device=device) - size // 2
    index = torch.arange(side, device=device)
    rows, columns = (index >= first) & (index < first + size)
    return ~(rows[:, :, None] & columns[:, None, :])[:, None]


class Training:
    """A student that learns from an online teacher, or from stored soft labels.

    Args:
        network: A name of `torch_networks.create`.
        images: (N, 3, H, W) float, on the device that all runs on.
        labels: (N,) int64.
        num_classes: Length of the logits.
        batch_size: Images of a step.
        memory_format: A key of `torch_networks.FORMATS`.
        loss: Loss of (student logits, teacher logits, labels).
        optimizer: "sgd", "adam" or "adamw".
        soft_labels: (N, classes) logits; None stands for the online teacher.
        dtype: "float32", or "bfloat16" for what autocast casts to it.
        compile_mode: Mode of `torch.compile`, which is given augmentation, networks and
            loss as one function; None compiles nothing.
        width: Width of a ConvNet.
    """

    def __init__(
        self,
        network: str,
        images: torch.Tensor,
        labels: torch.Tensor,
        *,
        num_classes: int,
        batch_size: int,
        memory_format: str,
        loss: Loss = gift,
        optimizer: str = "adamw",
        soft_labels: torch.Tensor | None = None,
        dtype: str = "float32",
        compile_mode: str | None = None,
        width: int | None = None,
    ) -> None:
        self._format = torch_networks.FORMATS[memory_format]
        self._images, self._labels = images, labels
        self._soft_labels = soft_labels
        self._batch_size = batch_size
        self._loss = loss
        self._dtype = dtype
        self.student, self._teacher = (
            torch_networks.create(
                network,
                num_classes=num_classes,
                image_size=images.shape[2],
                width=width,
            ).to(images.device, memory_format=self._format)
            for _ in range(2)
        )
        self._teacher.eval().requires_grad_(False)
        self._optimizer = _optimizer(optimizer, self.student)
        self._compiled = self._mean_loss, self._logits
        if compile_mode is not None:
            self._compiled = tuple(
                torch.compile(function, mode=compile_mode)
                for function in self._compiled
            )

    def epoch(self) -> int:
        """Trains on every image once, and returns the steps that it took."""
        self.student.train()
        order = torch.randperm(len(self._images), device=self._images.device)
        batches = order.split(self._batch_size)
        for indices in batches:
            loss = self._compiled[0](indices)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
        return len(batches)

    def _mean_loss(self, indices: torch.Tensor) -> torch.Tensor:
        images = diffaug(self._images[indices])
        images = images.contiguous(memory_format=self._format)
        if self._soft_labels is None:
            with torch.no_grad():
                soft_labels = self._logits(self._teacher, images)
        else:
            soft_labels = self._soft_labels[indices]
        logits = self._logits(self.student, images)
        return self._loss(logits, soft_labels, self._labels[indices])

    def _logits(self, network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        if self._dtype == "float32":
            return network(images)
        with torch.autocast(images.device.type, torch.bfloat16):
            return network(images).float()

    @torch.inference_mode()
    def evaluate(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        """Top-1 accuracy in percent."""
        self.student.eval()
        hits = 0
        for some, wanted in zip(images.split(500), labels.split(500), strict=True):
            some = some.contiguous(memory_format=self._format)
            logits = self._compiled[1](self.student, some)
            hits += int((logits.argmax(1) == wanted).sum())
        return 100 * hits / len(labels)


def _optimizer(name: str, student: nn.Module) -> torch.optim.Optimizer:
    parameters = student.parameters()
    if name == "sgd":
        return torch.optim.SGD(parameters, 0.01, momentum=0.9, fused=True)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    return kind(parameters, 1e-3, weight_decay=1e-4, fused=True)


def make(contender: str, workload: str) -> workers.Run:
    """A contender, ready to run."""
    if contender == "gemm":
        return _gemm()
    # The figures of a workload need JAX to be imported, not to be started.
    from experiments.benchmark import recovery_official
    from experiments.benchmark.workloads import WORKLOADS

    if contender.startswith("recovery, "):
        return recovery_official.iterations(contender.removeprefix("recovery, "))

    chosen = WORKLOADS[workload]
    training = Training(
        chosen.network,
        torch.randn(chosen.num_images, 3, chosen.image_size, chosen.image_size),
        torch.arange(chosen.num_images) % chosen.num_classes,
        num_classes=chosen.num_classes,
        batch_size=chosen.batch_size,
        memory_format=contender,
    )
    return training.epoch


def _gemm() -> workers.Run:
    factor = torch.randn(workers.GEMM_SIZE, workers.GEMM_SIZE)

    def run() -> int:
        torch.mm(factor, factor)
        return 1

    return run


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    if "--keep-freed-memory" in sys.argv:
        allocator.keep_freed_memory()
    workers.serve(make)
