"""The process that measures PyTorch's loop for one case, see `accelerator`."""

import functools
import itertools
import os
import time
from collections.abc import Callable, Iterator

import torch

from experiments.benchmark import cases, official, workloads
from experiments.benchmark.cases import Case, Row, first_line

LABELS = ("stored", "online")


def rows(case: Case, platform: str, peak: float | None) -> Iterator[Row]:
    """Training and evaluation in channels_last, eager and compiled.

    Args:
        case: What to measure.
        platform: JAX's name of the kind of device that it is compared on.
        peak: Operations per second of a matrix product there.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if platform != "cpu" and device == "cpu":
        reason = (
            f"PyTorch {torch.__version__} finds no CUDA, JAX computes on {platform}"
        )
        yield case.row("PyTorch", "training", error=reason)
        return
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.backends.cudnn.benchmark = True
    # As XLA's default: products of float32 in TF32 on GPUs that have it.
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    for mode, labels in itertools.product((None, *case.compile_modes), LABELS):
        by = "PyTorch, " + ("eager" if mode is None else f"torch.compile {mode}")
        try:
            yield from _rows(case, by, mode, labels, torch.device(device), peak)
        except Exception as error:  # of the compiler, or out of memory
            what = f"training, {labels} labels"
            yield case.row(by, what, students=1, error=first_line(error))


def _rows(
    case: Case,
    by: str,
    mode: str | None,
    labels: str,
    device: torch.device,
    peak: float | None,
) -> Iterator[Row]:
    torch.compiler.reset()  # a function that is compiled too often stays as it is
    began, workload = time.perf_counter(), case.workload
    number, side = workload.num_images, workload.image_size
    soft_labels = torch.randn(number, workload.num_classes, device=device)
    training = official.Training(
        workload.network,
        torch.randn(number, 3, side, side, device=device),
        torch.arange(number, device=device) % workload.num_classes,
        num_classes=workload.num_classes,
        batch_size=workload.batch_size,
        memory_format="channels_last",
        soft_labels=soft_labels if labels == "stored" else None,
        dtype=case.dtype,
        compile_mode=mode,
        width=workload.width,
    )
    epoch = functools.partial(_finished, training.epoch, device)
    epoch()
    first = time.perf_counter() - began
    # Runs every kind of view, each of which is compiled when it comes first.
    for _ in range(2):
        epoch()
    flops = workloads.training_flops(workload)
    if labels == "online":
        flops += workloads.forward_flops(workload)
    yield case.timed(
        by,
        f"training, {labels} labels",
        [seconds / case.steps for seconds in case.times(epoch)],
        images=workload.batch_size,
        flops=flops,
        peak=peak,
        students=1,
        first_epoch_seconds=first,
    )
    if labels == "stored":
        return
    test_images = torch.randn(case.test_images, 3, side, side, device=device)
    test_labels = torch.arange(case.test_images, device=device) % workload.num_classes
    evaluate = functools.partial(training.evaluate, test_images, test_labels)
    evaluate()  # compiles
    yield case.timed(by, "evaluation", case.times(evaluate), images=case.test_images)


def _finished(run: Callable[[], object], device: torch.device) -> None:
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    cases.serve({"rows": rows})
