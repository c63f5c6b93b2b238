"""The stages of a job as steps over abstract arrays, and what each of them costs."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gift_jax import losses, optimizers
from gift_jax.evaluators.accuracy import eval_step
from gift_jax.pipeline.labelling import needs_teacher
from gift_jax.plan import cost_model
from gift_jax.plan.workload import Workload
from gift_jax.soft_labels import views
from gift_jax.specs import settings, students
from gift_jax.teachers import teacher
from gift_jax.train import batches
from gift_jax.train.step import create_train_state, train_step

_SCORED_AT_ONCE = 256  # by RDED

# Stands for an array wherever nothing is computed.
_Shape: Any = jax.ShapeDtypeStruct


@dataclasses.dataclass(frozen=True)
class Stage:
    """One part of a job.

    Attributes:
      name: What it does.
      steps: How many there are.
      images: In a step, over all devices.
      flops: Of a step, over all devices.
      devices: How many it runs on.
      peak: FLOP/s of one of them.
    """

    name: str
    steps: int
    images: int
    flops: float
    devices: int
    peak: float

    @property
    def total_flops(self) -> float:
        """Of all steps."""
        return self.steps * self.flops

    def seconds(self, *, utilization: float, least_step: float) -> float:
        """Time on the devices.

        Args:
          utilization: Share of their peak that is reached.
          least_step: Seconds that even the smallest step takes.
        """
        step = self.flops / (self.devices * self.peak * utilization)
        return self.steps * max(step, least_step)


def stages(work: Workload) -> Iterator[Stage]:
    """All stages, in order."""
    config = work.config
    if needs_teacher(config):
        if not config.teacher.checkpoint:
            yield _teacher_training(work)
        yield _evaluation(
            work, "test of the teacher", work.teacher.model, config.teacher.dtype, 1
        )
        if config.distilled.name == "rded" and not config.distilled.path:
            yield _scoring(work)
        if config.relabel.source == "store":
            yield _labelling(work, 1)
        else:
            yield _labelling(work, sum(work.trainings.values()))
    every = config.train.eval_every or max(config.train.epochs // 4, 1)
    evaluations = math.ceil(config.train.epochs / every)
    for network, times in work.trainings.items():
        yield _training(work, network, times)
        model = settings.network(config.student, network, work.info)
        yield _evaluation(
            work,
            f"tests of {network}",
            model,
            config.student.dtype,
            times * evaluations,
        )


def memory(work: Workload, network: str) -> cost_model.Memory:
    """What one device holds in a training step of a student."""
    step, arguments = training_step(work, network)
    return cost_model.memory(step, *arguments)


def _teacher_training(work: Workload) -> Stage:
    section, devices = work.config.teacher, work.machine.devices
    spec = settings.teacher_training(work.config)
    batches.check_batch_size(spec.batch_size, devices)
    step, arguments = _step(
        work,
        work.teacher.model,
        spec.optimizer,
        losses.get_loss("ce"),
        section.augment,
        num_images=work.train_images,
        per_device=spec.batch_size // devices,
    )
    return _stage(
        work,
        f"training of {section.name}, the teacher",
        images=spec.epochs * work.train_images,
        batch_size=spec.batch_size,
        flops=_flops(work, step, *arguments),
        devices=devices,
        dtype=section.dtype,
    )


def _scoring(work: Workload) -> Stage:
    """RDED's choice of crops, on one device."""
    section = work.config.distilled
    available = work.train_images // work.info.num_classes
    per_class = min(section.images_per_class, available)

    def score(variables: Any, pixels: jax.Array) -> jax.Array:
        inputs = work.info.normalization.apply(pixels)
        return work.teacher.logits(variables, inputs, work.info.normalization)

    pixels = _Shape((_SCORED_AT_ONCE, *work.image_shape), jnp.float32)
    return _stage(
        work,
        "choice of crops (rded)",
        images=work.info.num_classes * per_class * section.crops_per_image,
        batch_size=_SCORED_AT_ONCE,
        flops=_flops(work, score, work.teacher.variables, pixels),
        devices=1,
        dtype=work.config.teacher.dtype,
    )


def _labelling(work: Workload, times: int) -> Stage:
    config, devices = work.config, work.machine.devices
    batch_size = min(config.relabel.batch_size, work.distilled_images)
    per_device = math.ceil(batch_size / work.machine.host_devices)
    view_images = _view_images(work, config.augment)

    def label(variables: Any, data: Any, number: Any, indices: Any) -> jax.Array:
        images = view_images.images(data, number, indices)
        return work.teacher.logits(variables, images, work.info.normalization)

    flops = _flops(
        work,
        label,
        work.teacher.variables,
        _train_data(work, work.distilled_images),
        _Shape((), jnp.int32),
        _Shape((per_device,), jnp.int32),
    )
    return _stage(
        work,
        "relabelling",
        images=times * settings.views(config) * work.distilled_images,
        batch_size=per_device * devices,
        flops=flops,
        devices=devices,
        dtype=config.teacher.dtype,
    )


def _training(work: Workload, network: str, times: int) -> Stage:
    step, arguments = training_step(work, network)
    epochs = work.config.train.epochs
    return _stage(
        work,
        f"training of {network}" + (f", {times} times" if times > 1 else ""),
        images=times * epochs * work.distilled_images,
        batch_size=work.batch_size,
        flops=_flops(work, step, *arguments),
        devices=work.training_devices,
        dtype=work.config.student.dtype,
    )


def _evaluation(
    work: Workload, name: str, model: nn.Module, dtype: str, times: int
) -> Stage:
    devices = work.machine.devices
    batch_size = min(work.config.train.eval_batch_size, work.test_images)
    per_device = math.ceil(batch_size / devices)
    step = functools.partial(eval_step, model=model, transform=work.info.normalization)
    flops = _flops(
        work,
        step,
        teacher.variable_shapes(model, work.image_shape),
        _Shape((per_device, *work.image_shape), jnp.uint8),
        _Shape((per_device,), jnp.int32),
    )
    return _stage(
        work,
        name,
        images=times * work.test_images,
        batch_size=per_device * devices,
        flops=flops,
        devices=devices,
        dtype=dtype,
    )


def _stage(
    work: Workload,
    name: str,
    *,
    images: int,
    batch_size: int,
    flops: float,
    devices: int,
    dtype: str,
) -> Stage:
    """A stage over so many images, of one device's share of a step."""
    return Stage(
        name=name,
        steps=math.ceil(images / batch_size),
        images=batch_size,
        flops=flops * devices,
        devices=devices,
        peak=work.machine.chip.peak[dtype],
    )


def _flops(work: Workload, step: Callable[..., Any], *arguments: Any) -> float:
    platform = work.machine.chip.platform
    return cost_model.flops(step, *arguments, platform=platform)


def training_step(work: Workload, network: str) -> tuple[Callable[..., Any], tuple]:
    """A student's `train_step`, and the shapes of its arguments.

    Args:
      work: Config and machine.
      network: Of the student; of several with it the first is taken.
    """
    setup = next(s for s in students.setups(work.config) if s[0].network == network)
    spec = setup[0]
    return _step(
        work,
        settings.network(work.config.student, network, work.info),
        spec.optimizer,
        losses.get_loss(spec.loss, **dict(spec.loss_options)),
        work.config.augment,
        num_images=work.distilled_images,
        per_device=work.batch_size // work.training_devices,
    )


def _step(
    work: Workload,
    model: nn.Module,
    optimizer: optimizers.OptimizerSpec,
    loss: losses.Loss,
    augment: settings.Config,
    *,
    num_images: int,
    per_device: int,
) -> tuple[Callable[..., Any], tuple]:
    """`train_step` and the shapes of its arguments."""
    state = jax.eval_shape(
        lambda key: create_train_state(
            model,
            optimizers.build_optimizer(optimizer, epochs=1, steps_per_epoch=1),
            work.image_shape,
            learning_rate=optimizer.learning_rate or 0.0,
            init_key=key,
            dropout_key=key,
        ),
        _key(),
    )
    logits = _Shape((num_images, work.info.num_classes), jnp.float16)
    step = functools.partial(
        train_step, loss=loss, view_images=_view_images(work, augment)
    )
    return step, (
        state,
        _train_data(work, num_images),
        views.View(_Shape((), jnp.int32), logits),
        _Shape((per_device,), jnp.int32),
    )


def _view_images(work: Workload, section: settings.Config) -> views.AugmentedViews:
    spec = settings.augment_spec(section)
    return views.AugmentedViews(spec, work.info.normalization)


def _train_data(work: Workload, num_images: int) -> views.TrainData:
    """A training set whose images are kept as 8-bit pixels."""
    return views.TrainData(
        images=_Shape((num_images, *work.image_shape), jnp.uint8),
        labels=_Shape((num_images,), jnp.int32),
        view_key=_key(),
    )


def _key() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0))
