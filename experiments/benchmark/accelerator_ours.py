"""The process that measures this package for one case, see `accelerator`."""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark import cases, ours, workloads
from experiments.benchmark.busy import busy_share
from experiments.benchmark.cases import MATMUL, Case, Row, first_line
from gift_jax.data.image_split import ImageSplit
from gift_jax.data.info import DatasetInfo
from gift_jax.data.sources import RecordList
from gift_jax.evaluators.accuracy import AccuracyEvaluator
from gift_jax.runtime import allocator
from gift_jax.soft_labels import relabel
from gift_jax.soft_labels.base import SoftLabels

BY = "gift_jax"
EVALUATION, RELABELLING = "evaluation", "relabelling"
# The defaults of configs/common.py.
_EVALUATION_BATCH, _RELABELLING_BATCH = 500, 256


def training(students: int) -> str:
    """Names what is measured for `students` students."""
    return f"training, {students} student{'s' if students > 1 else ''}"


def rows(case: Case, started: float) -> Iterator[Row]:
    """Everything that is measured of this package for a case.

    Args:
        case: What to measure.
        started: `time.time()` when the process was started.
    """
    soft_labels = _random_labels(case)
    peak = None
    for number, students in enumerate(case.students):
        name, trained = training(students), None
        try:
            trained = _train(case, soft_labels, students)
        except Exception as error:  # most likely out of memory: others may have enough
            yield case.row(BY, name, students=students, error=first_line(error))
        if number == 0:
            if trained is not None:
                yield _start_row(case, "start", trained, started)
            product = _matmul(case)
            peak = product["flops_per_second"]
            yield product
        if trained is not None:
            yield _training_row(case, students, trained, peak)
    for name, measure in ((EVALUATION, _evaluate), (RELABELLING, _relabel)):
        try:
            yield measure(case)
        except Exception as error:
            yield case.row(BY, name, error=first_line(error))


def start(case: Case, started: float) -> Iterator[Row]:
    """Seconds to the first step alone, where another process has compiled it."""
    alone = dataclasses.replace(case, rounds=1, profile=None)
    trained = _train(alone, _random_labels(alone), alone.students[0])
    yield _start_row(case, "start, compiled before", trained, started)


def _start_row(case: Case, what: str, trained: "_Trained", started: float) -> Row:
    seconds = trained.first_step_at - started
    return case.row(
        BY,
        what,
        students=case.students[0],
        seconds=[seconds],
        note=f"{seconds:.1f} s from the start of the process to the first step's end",
    )


class _Trained(NamedTuple):
    """Times of a training, in seconds.

    Attributes:
        first_step_at: `time.time()` at the end of the first step.
        first_epoch: Time of the first epoch, with compilation.
        steps: Time of a step, of every round.
        donated: Whether an epoch frees the state before it.
        busy: See `busy_share`.
    """

    first_step_at: float
    first_epoch: float
    steps: list[float]
    donated: bool
    busy: float | None


def _train(case: Case, soft_labels: SoftLabels, students: int) -> _Trained:
    began = time.perf_counter()
    epochs = ours.epochs(case.workload, soft_labels, students=students)

    def epoch() -> list[jax.Array]:
        _, state, _ = next(epochs)
        return jax.block_until_ready(jax.tree.leaves(state.params))

    before = epoch()
    ended, first_epoch = time.time(), time.perf_counter() - began
    steps = [seconds / case.steps for seconds in case.times(epoch)]
    donated = all(leaf.is_deleted() for leaf in before)
    # An epoch is one dispatch where it is a scan: the first step ends in the middle.
    first_step_at = ended - (case.steps - 1) * float(np.median(steps))
    busy = _traced(case, training(students), epoch)
    epochs.close()
    return _Trained(first_step_at, first_epoch, steps, donated, busy)


def _training_row(
    case: Case, students: int, found: _Trained, peak: float | None
) -> Row:
    return case.timed(
        BY,
        training(students),
        found.steps,
        images=students * case.workload.batch_size,
        flops=students * workloads.training_flops(case.workload),
        peak=peak,
        students=students,
        first_epoch_seconds=found.first_epoch,
        donated=found.donated,
        busy=found.busy,
    )


def _traced(case: Case, name: str, run: Callable[[], Any]) -> float | None:
    if case.profile is None:
        return None
    folder = f"{case.network} {case.dtype} {name}".replace(",", "").replace(" ", "_")
    return busy_share(run, pathlib.Path(case.profile) / folder)


def _matmul(case: Case) -> Row:
    """Matrix products large enough for the peak; on accelerators several in one go."""
    device = jax.local_devices()[0]
    size, products = (2048, 1) if device.platform == "cpu" else (8192, 20)
    factor = jax.random.normal(jax.random.key(0), (size, size), case.dtype)
    multiply = jax.jit(jnp.matmul)
    multiply(factor, factor).block_until_ready()

    def multiply_all() -> None:
        results = [multiply(factor, factor) for _ in range(products)]
        results[-1].block_until_ready()

    seconds = [seconds / products for seconds in case.times(multiply_all)]
    return case.row(
        BY,
        MATMUL,
        seconds=seconds,
        ms=1e3 * float(np.median(seconds)),
        flops_per_second=2 * size**3 / float(np.median(seconds)),
        device=device.device_kind,
        platform=device.platform,
        note=f"{size} x {size}",
    )


def _random_labels(case: Case) -> SoftLabels:
    """A store on disk, as of a job; a teacher would be part of the time to start."""
    rng, classes = np.random.default_rng(0), case.workload.num_classes
    return ours.stored(
        case.workload, lambda view, rows: rng.normal(size=(len(rows), classes))
    )


def _evaluate(case: Case) -> Row:
    """Evaluates as a job does: images stay on the device, batches follow one by one."""
    workload, count, rng = case.workload, case.test_images, np.random.default_rng(0)
    side, classes = workload.image_size, workload.num_classes
    images = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    info = DatasetInfo("random", classes, side, 3, ours.NORMALIZATION)
    source = RecordList(images, np.arange(count) % classes)
    evaluator = AccuracyEvaluator(
        ImageSplit(source, info, "test"),
        ours.NORMALIZATION,
        devices=jax.local_devices()[:1],
        batch_size=_EVALUATION_BATCH,
        workers=0,
    )
    student = ours.student(workload)

    def evaluate() -> None:
        evaluator(student.model, student)

    evaluate()  # compiles
    seconds = case.times(evaluate)
    busy = _traced(case, EVALUATION, evaluate)
    return case.timed(BY, EVALUATION, seconds, images=count, busy=busy)


def _relabel(case: Case) -> Row:
    """Labels views with a teacher of the student's network, into a store on disk."""
    label_views = ours.teacher_views(case.workload)
    batch_size = min(_RELABELLING_BATCH, case.workload.num_images)

    def relabel_all() -> None:
        relabel.relabel(
            ours.empty_store(case.workload), label_views, batch_size=batch_size
        )

    relabel_all()  # compiles
    images = ours.VIEWS * case.workload.num_images
    return case.timed(BY, RELABELLING, case.times(relabel_all), images=images)


if __name__ == "__main__":
    allocator.keep_freed_memory()
    cases.serve({"rows": rows, "start": start})
