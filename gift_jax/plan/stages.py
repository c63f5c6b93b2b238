"""The stages of a job as steps over abstract arrays."""

import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from gift_jax import distill, losses, optimizers
from gift_jax.evaluators.accuracy import eval_step
from gift_jax.plan.cost_model import Stage
from gift_jax.plan.workload import Batching, Workload
from gift_jax.soft_labels import views
from gift_jax.specs import NetworkSpec
from gift_jax.teachers.flax_teacher import variable_shapes
from gift_jax.train.batches import steps_per_epoch
from gift_jax.train.step import create_train_state, train_step
from gift_jax.train.teacher import TrainingSpec

# Stands for an array wherever nothing is computed.
_Shape: Any = jax.ShapeDtypeStruct


def stages(work: Workload) -> Iterator[Stage]:
    """All stages that can be counted, in order."""
    spec, network = work.spec, work.spec.teacher.network
    if network and spec.relabel.needs_teacher:
        if spec.teacher.training:
            yield _training(
                work,
                f"training of {network.label}, the teacher",
                network,
                spec.teacher.training,
                losses.get_loss("ce"),
                work.real_images["train"],
            )
        test = work.evaluation("test")
        yield _forward(work, "test of the teacher", network, test)
        if isinstance(rded := spec.distilled.distiller, distill.Rded):
            crops = work.scoring(rded)
            yield _forward(work, "choice of crops (rded)", network, crops)
        yield _forward(work, "relabelling", network, work.labelling)
    for network, training in student_trainings(work).items():
        yield training
        of_network = [t for t in work.trainings if t.first.network == network]
        for name, split, times in (
            ("tests", "test", math.ceil(spec.train.epochs / spec.train.evaluate_every)),
            ("validation", "validation", 1),
        ):
            times *= sum(t.students for t in of_network if t.split == split)
            if times and "accuracy" in spec.train.evaluators:
                once = work.evaluation(split)
                every = once._replace(steps=times * once.steps)
                yield _forward(work, f"{name} of {network.label}", network, every)


def left_out(work: Workload) -> Iterator[str]:
    """What has no network of this project to count."""
    spec = work.spec
    if spec.relabel.needs_teacher and spec.teacher.network is None:
        yield f"the teacher {spec.teacher.name}: its test, and all that it labels"
    known = (distill.Random, distill.Rded, type(None))
    if not isinstance(spec.distilled.distiller, known):
        yield f"the distiller {spec.distilled.name}"
    for name in spec.train.evaluators:
        if name != "accuracy":
            yield f"the evaluator {name}"


def student_trainings(work: Workload) -> dict[NetworkSpec, Stage]:
    """All trainings of each network, with the first loss and optimizer it has."""
    spec, found = work.spec, {}
    for first in (t.first for t in reversed(work.trainings)):
        network = first.network
        times = sum(t.students for t in work.trainings if t.first.network == network)
        found[network] = _training(
            work,
            f"training of {network.label}" + (f", {times} times" if times > 1 else ""),
            network,
            TrainingSpec(
                first.optimizer,
                epochs=times * spec.train.epochs,
                batch_size=work.batch_size,
                augmentation=spec.augment,
                seed=first.seed,
            ),
            first.loss.build(),
            work.distilled_images,
            _Shape((work.distilled_images, work.info.num_classes), jnp.float16),
        )
    return dict(reversed(found.items()))


def _training(
    work: Workload,
    name: str,
    network: NetworkSpec,
    spec: TrainingSpec,
    loss: losses.Loss,
    num_images: int,
    logits: Any = None,
) -> Stage:
    """A training on images that are kept as 8-bit pixels."""
    state = jax.eval_shape(
        lambda key: create_train_state(
            network.build(work.info),
            optimizers.build_optimizer(
                spec.optimizer, epochs=spec.epochs, steps_per_epoch=1
            ),
            work.image_shape,
            learning_rate=spec.optimizer.learning_rate,
            init_key=key,
            dropout_key=key,
        ),
        jax.random.key(0),
    )
    data = views.TrainData(
        images=_Shape((num_images, *work.image_shape), jnp.uint8),
        labels=_Shape((num_images,), jnp.int32),
        view_key=state.dropout_key,
    )
    view_images = views.AugmentedViews(spec.augmentation, work.info.normalization)
    devices = work.devices_for(spec.batch_size)
    per_device, rest = spec.batch_size // devices, num_images % spec.batch_size
    view = views.View(_Shape((), jnp.int32), logits)
    return Stage(
        name,
        functools.partial(train_step, loss=loss, view_images=view_images),
        (state, data, view, _Shape((per_device,), jnp.int32)),
        spec.epochs * steps_per_epoch(num_images, spec.batch_size),
        per_device,
        devices,
        network.dtype,
        work.machine,
        # All devices compute the whole of the rest of an epoch.
        saved=spec.epochs * (1 - rest / per_device) if rest else 0.0,
    )


def _forward(
    work: Workload, name: str, network: NetworkSpec, batching: Batching
) -> Stage:
    """Forward passes; making the crops or views, a few percent, is not counted."""
    model, per_device = network.build(work.info), batching.per_device
    return Stage(
        name,
        functools.partial(eval_step, model=model, transform=work.info.normalization),
        (
            variable_shapes(model, work.image_shape),
            _Shape((per_device, *work.image_shape), jnp.uint8),
            _Shape((per_device,), jnp.int32),
        ),
        *batching,
        network.dtype,
        work.machine,
    )
