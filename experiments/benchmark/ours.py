"""The worker with this package's contenders.

- stored: epochs of `gift_jax.train` on soft labels read from a store on disk;
- online: the same with the teacher run on every view of every epoch;
- the name of a loss: "stored" with it, in place of GIFT;
- recovery: iterations of `recovery_ours`;
- gemm: a product of two 2048 x 2048 matrices.
"""

import functools
import pathlib
import tempfile
from collections.abc import Callable

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
from gift_jax.train.epochs import make_run_epoch, train_epochs
from gift_jax.train.step import TrainState, create_train_state, train_step

GEMM_SIZE = 2048
_EPOCHS = 1000  # more than are ever run
_VIEWS = 4
_SCRATCH = tempfile.TemporaryDirectory()
_AUGMENTED = views.AugmentedViews(
    augment.AugmentSpec(diffaug="color_crop_cutout_flip_scale_rotate"), None
)
_NORMALIZATION = preprocess.Normalization((0.5,) * 3, (0.25,) * 3)


def make(contender: str, workload: str) -> workers.Run:
    """A contender, ready to run."""
    if contender == "gemm":
        return _gemm()
    if contender == "recovery":
        return recovery_ours.iterations()
    return _training(workloads.find(workload), contender)


def _gemm() -> workers.Run:
    factor = jnp.asarray(_random(GEMM_SIZE, GEMM_SIZE))
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
        _student(workload),
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
    """Epoch after epoch of one student."""
    devices = tuple(jax.local_devices()[:1])
    data = _data(workload)
    label_views = _label_views(workload, data, devices)
    make_labels: Callable[..., SoftLabels] = (
        _online if contender == "online" else _stored
    )
    epochs = train_epochs(
        _student(workload),
        data,
        make_labels(workload, label_views),
        make_run_epoch(
            loss=losses.get_loss(
                contender if contender in losses.LOSS_NAMES else "gift"
            ),
            view_images=_AUGMENTED,
            devices=devices,
        ),
        first_epoch=0,
        epochs=_EPOCHS,
        batch_size=workload.batch_size,
        order_keys=[jax.random.key(2)],
        devices=devices,
    )

    def run() -> int:
        _, state, _ = next(epochs)
        jax.block_until_ready(state.params)
        return workload.steps

    return run


def _student(workload: Workload) -> TrainState:
    optimizer = optimizers.build_optimizer(
        optimizers.OptimizerSpec("adamw"),
        epochs=_EPOCHS,
        steps_per_epoch=workload.steps,
    )
    return create_train_state(
        workload.model(axis_name=AXIS),
        optimizer,
        (workload.image_size, workload.image_size, 3),
        learning_rate=1e-3,
        init_key=jax.random.key(3),
        dropout_key=jax.random.key(4),
    )


def _label_views(
    workload: Workload, data: views.TrainData, devices: tuple[jax.Device, ...]
) -> LabelViews:
    """A teacher of the student's architecture, as in the official scripts."""
    model = workload.model()
    key = jax.random.key(5)
    variables = models.init_variables(model, key, image_size=workload.image_size)
    teacher = FlaxTeacher(workload.network, model, variables, _NORMALIZATION)
    return relabel.make_label_views(
        teacher, data, _AUGMENTED, transform=_NORMALIZATION, devices=devices
    )


def _online(workload: Workload, label_views: LabelViews) -> OnlineSoftLabels:
    return OnlineSoftLabels(
        label_views, workload.num_images, views=_EPOCHS, batch_size=workload.batch_size
    )


def _stored(workload: Workload, label_views: LabelViews) -> SoftLabelStore:
    directory = pathlib.Path(tempfile.mkdtemp(dir=_SCRATCH.name))
    store = open_store(
        directory / "soft_labels",
        views=_VIEWS,
        num_images=workload.num_images,
        num_classes=workload.num_classes,
    )
    batches = np.arange(workload.num_images).reshape(-1, workload.batch_size)
    for view, start, stop in store.missing_chunks():
        logits = np.concatenate([label_views(view, batch) for batch in batches])
        store.write(view, start, logits[start:stop])
    return store


if __name__ == "__main__":
    allocator.keep_freed_memory()
    workers.serve(make)
