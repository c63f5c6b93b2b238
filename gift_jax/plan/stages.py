"""Stages as steps over abstract arrays, batched as the pipeline does."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from gift_jax import losses, streams
from gift_jax.data.info import DatasetInfo
from gift_jax.evaluators.accuracy import count_hits
from gift_jax.evaluators.answers import answer
from gift_jax.plan.cost_model import Machine, Stage
from gift_jax.plan.datasets import RealData
from gift_jax.plan.workload import Workload
from gift_jax.runtime.devices import padded_batches
from gift_jax.soft_labels import views
from gift_jax.soft_labels.store import rows_of_chunks
from gift_jax.specs import NetworkSpec, TeacherSpec
from gift_jax.teachers.flax_teacher import variable_shapes
from gift_jax.train import batches
from gift_jax.train.step import new_student, train_step
from gift_jax.train.streaming import StreamedViews
from gift_jax.train.teacher import RESIDENT_BYTES, TrainingSpec

# Stands for an array wherever nothing is computed.
Shape: Any = jax.ShapeDtypeStruct
# Both have `build`, `label` and `dtype`.
Network = NetworkSpec | TeacherSpec


def teacher_network(
    work: Workload, member: TeacherSpec, data: RealData, kind: str, *, is_tested: bool
) -> Iterator[Stage]:
    """Training, if it is trained here, and test of one network of a teacher."""
    if member.training:
        name = f"training of {member.label}, {kind}"
        loss = losses.get_loss("ce")
        yield real_training(work, name, member, member.training, loss, data)
    if is_tested:
        yield test(work, f"test of {member.label}", member, data)


def student_training(work: Workload, network: NetworkSpec) -> Stage:
    """All trainings of a network, with the first loss and optimizer it has.

    Raises:
      InputError: a batch size that does not divide.
    """
    first = work.trainings[network][0].first
    times = sum(t.students for t in work.trainings[network])
    num_images, info = work.distilled_images, work.student_info
    spec = TrainingSpec(
        first.optimizer,
        epochs=work.spec.train.epochs,
        batch_size=work.spec.train.batch_size_for(num_images),
        augmentation=work.spec.augment,
        seed=first.seed,
    )
    return training(
        work.machine,
        f"training of {network.label}",
        network,
        spec,
        first.loss.build(),
        info,
        resident_data(num_images, info),
        view_images=views.AugmentedViews(spec.augmentation, info.normalization),
        logits=Shape((num_images, info.num_classes), jnp.float16),
        at_once=work.at_once,
        resident=work.resident_bytes,
    ).repeated(times)


def real_training(
    work: Workload,
    name: str,
    network: Network,
    spec: TrainingSpec,
    loss: losses.Loss,
    data: RealData,
) -> Stage:
    """A training on real images, which a device keeps as 8-bit pixels if they are few.

    Of a larger split it keeps only the images of a step.
    """
    info, num_images = data.info, data.images["train"]
    kept = resident_data(num_images, info)
    kind: Any = views.AugmentedViews
    if num_images * math.prod(info.image_shape) > RESIDENT_BYTES:
        kind, of_step = StreamedViews, 1 if spec.augmentation.mix == "none" else 2
        per_device = spec.batch_size // _devices(work.machine, spec.batch_size)
        shape = (of_step, per_device, *info.image_shape)
        kept = kept.replace(images=Shape(shape, jnp.uint8))
    view_images = kind(spec.augmentation, info.normalization)
    return training(
        work.machine, name, network, spec, loss, info, kept, view_images=view_images
    )


def resident_data(
    num_images: int, info: DatasetInfo, dtype: Any = jnp.uint8
) -> views.TrainData:
    """Images and hard labels that stay on a device."""
    return views.TrainData(
        images=Shape((num_images, *info.image_shape), dtype),
        labels=Shape((num_images,), jnp.int32),
        view_key=jax.eval_shape(streams.key, 0),
    )


def training(
    machine: Machine,
    name: str,
    network: Network,
    spec: TrainingSpec,
    loss: losses.Loss,
    info: DatasetInfo,
    data: views.TrainData,
    *,
    view_images: views.ViewImages,
    logits: Any = None,
    **options: Any,
) -> Stage:
    """A training of a network for `info` on what a device keeps.

    Raises:
      InputError: the batch does not divide over the hosts.
    """
    num_images = len(data.labels)
    new_state = functools.partial(
        new_student, network.build(info), spec.optimizer,
        resident_data(num_images, info), epochs=spec.epochs, batch_size=spec.batch_size,
    )  # fmt: skip
    devices = _devices(machine, spec.batch_size)
    per_device, rest = spec.batch_size // devices, num_images % spec.batch_size
    return Stage(
        name,
        functools.partial(train_step, loss=loss, view_images=view_images),
        (
            jax.eval_shape(new_state),
            data,
            views.View(Shape((), jnp.int32), logits, Shape((), jnp.float32)),
            Shape((per_device,), jnp.int32),
        ),
        spec.epochs * batches.steps_per_epoch(num_images, spec.batch_size),
        per_device,
        devices,
        network.dtype,
        machine,
        # Every device computes the whole smaller batch that ends an epoch.
        saved=spec.epochs * (1 - rest / per_device) if rest else 0.0,
        **options,
    )


def _devices(machine: Machine, batch_size: int) -> int:
    return machine.hosts * batches.devices_used(batch_size, **machine.places)


def student_tests(work: Workload, network: NetworkSpec) -> Iterator[Stage]:
    """Evaluations of all students of a network."""
    train, data = work.spec.train, RealData(work.student_info, work.seen.images)
    tests = math.ceil(train.epochs / train.evaluate_every)
    for name, split, each in (
        ("tests", "test", tests),
        ("validation", "validation", 1),
    ):
        of_split = (t for t in work.trainings[network] if t.split == split)
        times = each * sum(t.students for t in of_split)
        if times:
            label = f"{name} of {network.label}"
            yield test(work, label, network, data, split=split, times=times)


def test(
    work: Workload,
    name: str,
    network: Network,
    data: RealData,
    *,
    split: str = "test",
    times: int = 1,
) -> Stage:
    """A network on a split; the last batches are padded."""
    batch_size, machine = work.spec.train.eval_batch_size, work.machine
    steps, size = padded_batches(data.images[split], batch_size, **machine.places)
    return forward(
        machine, name, network, data.info, times * steps, size, machine.devices
    )


def relabelling(work: Workload) -> Stage:
    """The teacher on all views; the last batch of every chunk is padded."""
    images, local = work.distilled_images, work.machine.host_devices
    batch_size, devices = work.spec.relabel.batch_size, work.machine.devices
    steps, size = padded_batches(images, batch_size, local_devices=local)
    if work.spec.relabel.is_stored:
        rows = rows_of_chunks(images, work.student_info.num_classes)
        starts = [*range(0, images, rows)] * work.spec.labelled_views
        chunks = [min(rows, images - s) for s in starts[:: work.machine.hosts]]
        steps = sum(math.ceil(chunk / (size * local)) for chunk in chunks)
    else:
        # Done by every host, once for all students that train at once.
        trainings = itertools.chain(*work.trainings.values())
        steps *= sum(math.ceil(t.students / work.at_once) for t in trainings)
        steps, devices = steps * work.spec.soft_epochs, local
    info = work.seen.info if work.spec.is_retrained else work.real.info
    return forward(
        work.machine, "relabelling", work.spec.teacher, info, steps, size, devices
    )


def seen(network: Network, info: DatasetInfo) -> DatasetInfo:
    """The dataset as a network is fed it: a teacher behind its transform."""
    if not isinstance(network, TeacherSpec):
        return info
    return dataclasses.replace(info, image_size=network.transform.side(info.image_size))


def forward(
    machine: Machine,
    name: str,
    network: Network,
    info: DatasetInfo,
    steps: int,
    per_device: int,
    devices: int,
) -> Stage:
    """Forward passes; making the crops or views, a few percent, is not counted."""
    model, info = network.build(info), seen(network, info)
    return Stage(
        name,
        functools.partial(
            answer, model=model, transform=info.normalization, reduce=count_hits
        ),
        (
            variable_shapes(model, info.image_shape),
            Shape((per_device, *info.image_shape), jnp.uint8),
            Shape((per_device,), jnp.int32),
        ),
        steps,
        per_device,
        devices,
        network.dtype,
        machine,
        program=f"forward passes of {network.label}",
        is_donated=False,
    )
