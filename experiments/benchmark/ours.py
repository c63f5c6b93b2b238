"""The worker with this package's contenders.

- stored: epochs of `gift_jax.train` on soft labels read from a store on disk;
- online: the same with the teacher run on every view of every epoch;
- the name of a loss: "stored" with it, in place of GIFT;
- "alone" and the name of a loss: it and its gradient by the logits, outside a step;
- recovery: iterations of `recovery_ours`;
- gemm: a product of two 2048 x 2048 matrices.
"""

import functools
import pathlib
import tempfile
from collections.abc import Generator

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark import recovery_ours, workers, workloads
from experiments.benchmark.workloads import Workload
from gift_jax import augment, losses, models, optimizers
from gift_jax.data import preprocess
from gift_jax.runtime import allocator
from gift_jax.runtime.devices import AXIS
from gift_jax.soft_labels import relabel, views
from gift_jax.soft_labels.base import LabelViews, SoftLabels
from gift_jax.soft_labels.online import OnlineSoftLabels
from gift_jax.soft_labels.store import SoftLabelStore, open_store
from gift_jax.teachers import FlaxTeacher
from gift_jax.train.epochs import EpochMetrics, make_run_epoch, train_epochs
from gift_jax.train.step import (
    TrainState,
    create_train_state,
    stack_states,
    train_step,
)

ALONE = "alone "
_CALLS = 500  # calls of a loss alone in a run
_EPOCHS = 1000  # more than are ever run
VIEWS = 4
_SCRATCH = tempfile.TemporaryDirectory()
_AUGMENTED = views.AugmentedViews(
    augment.AugmentSpec(diffaug=augment.DIFFAUG_STRATEGY), None
)
NORMALIZATION = preprocess.Normalization((0.5,) * 3, (0.25,) * 3)


def make(contender: str, workload: str) -> workers.Run:
    """A contender, ready to run."""
    if contender == "gemm":
        return _gemm()
    if contender == "recovery":
        return recovery_ours.iterations()
    if contender.startswith(ALONE):
        return _loss_alone(workloads.find(workload), contender.removeprefix(ALONE))
    return _training(workloads.find(workload), contender)


def _loss_alone(workload: Workload, name: str) -> workers.Run:
    loss = losses.get_loss(name)
    gradient = jax.jit(jax.value_and_grad(lambda *batch: jnp.mean(loss(*batch))))
    student, teacher = map(
        jnp.asarray, _random(2, workload.batch_size, workload.num_classes)
    )
    labels = jnp.arange(workload.batch_size) % workload.num_classes

    def run() -> int:
        for _ in range(_CALLS):
            jax.block_until_ready(gradient(student, teacher, labels))
        return _CALLS

    return run


def _gemm() -> workers.Run:
    factor = jnp.asarray(_random(workers.GEMM_SIZE, workers.GEMM_SIZE))
    multiply = jax.jit(jnp.matmul)

    def run() -> int:
        multiply(factor, factor).block_until_ready()
        return 1

    return run


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def memory_bytes(workload: Workload, loss: str) -> int:
    """What XLA sets aside for one training step, besides its arguments and results."""
    step = functools.partial(
        train_step, loss=losses.get_loss(loss), view_images=_AUGMENTED
    )
    mapped = jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, None, None, 0),
        out_axes=(None, None),
        donate_argnums=(0,),
        devices=jax.local_devices()[:1],
    )
    logits = np.zeros((workload.num_images, workload.num_classes), np.float32)
    compiled = mapped.lower(
        student(workload),
        _data(workload),
        views.View(np.int32(0), logits),
        np.zeros((1, workload.batch_size), np.int32),
    ).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def _data(workload: Workload) -> views.TrainData:
    side = workload.image_size
    return views.TrainData(
        images=jnp.asarray(_random(workload.num_images, side, side, 3)),
        labels=jnp.arange(workload.num_images, dtype=jnp.int32) % workload.num_classes,
        view_key=jax.random.key(1),
    )


def _training(workload: Workload, contender: str) -> workers.Run:
    """Trains one student, epoch after epoch."""
    label_views = teacher_views(workload)
    trained = epochs(
        workload,
        _online(workload, label_views)
        if contender == "online"
        else stored(workload, label_views),
        loss=contender if contender in losses.LOSS_NAMES else "gift",
    )

    def run() -> int:
        _, state, _ = next(trained)
        jax.block_until_ready(state.params)
        return workload.steps

    return run


def epochs(
    workload: Workload,
    soft_labels: SoftLabels,
    *,
    loss: str = "gift",
    students: int = 1,
) -> Generator[tuple[int, TrainState, EpochMetrics]]:
    """Epochs on one device, one after the other, of students that train at once.

    Args:
        workload: The network, and its data.
        soft_labels: Soft labels of its images.
        loss: A name of `losses.LOSS_NAMES`.
        students: Number of students, each with weights and an order of its own.

    Returns:
        What `train_epochs` yields.
    """
    devices = tuple(jax.local_devices()[:1])
    several = students > 1
    states = [student(workload, number) for number in range(students)]
    return train_epochs(
        stack_states(states) if several else states[0],
        _data(workload),
        soft_labels,
        make_run_epoch(
            loss=losses.get_loss(loss),
            view_images=_AUGMENTED,
            devices=devices,
            students=students if several else None,
        ),
        first_epoch=0,
        epochs=_EPOCHS,
        batch_size=workload.batch_size,
        order_keys=[jax.random.key(number) for number in range(students)],
        devices=devices,
    )


def student(workload: Workload, seed: int = 0) -> TrainState:
    """A student before its first step."""
    return create_train_state(
        workload.model(axis_name=AXIS),
        optimizers.OptimizerSpec("adamw"),
        (workload.image_size, workload.image_size, 3),
        epochs=_EPOCHS,
        steps_per_epoch=workload.steps,
        init_key=jax.random.key(seed),
        dropout_key=jax.random.key(seed),
    )


def teacher_views(workload: Workload) -> LabelViews:
    """A teacher of the student's architecture, as in the official scripts."""
    model = workload.model()
    key = jax.random.key(5)
    variables = models.init_variables(model, key, image_size=workload.image_size)
    teacher = FlaxTeacher(workload.network, model, variables, NORMALIZATION)
    return relabel.make_label_views(
        teacher,
        _data(workload),
        _AUGMENTED,
        transform=NORMALIZATION,
        devices=jax.local_devices()[:1],
    )


def _online(workload: Workload, label_views: LabelViews) -> OnlineSoftLabels:
    return OnlineSoftLabels(
        label_views, workload.num_images, views=_EPOCHS, batch_size=workload.batch_size
    )


def stored(workload: Workload, label_views: LabelViews) -> SoftLabelStore:
    """A store on disk with the labels of some views."""
    store = empty_store(workload)
    batches = np.arange(workload.num_images).reshape(-1, workload.batch_size)
    for view, start, stop in store.missing_chunks():
        logits = np.concatenate([label_views(view, batch) for batch in batches])
        store.write(view, start, logits[start:stop])
    return store


def empty_store(workload: Workload) -> SoftLabelStore:
    """A store of `VIEWS` views, to be filled."""
    directory = pathlib.Path(tempfile.mkdtemp(dir=_SCRATCH.name))
    return open_store(
        directory / "soft_labels",
        views=VIEWS,
        num_images=workload.num_images,
        num_classes=workload.num_classes,
    )


if __name__ == "__main__":
    allocator.keep_freed_memory()
    workers.serve(make)
