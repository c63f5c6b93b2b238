"""The stages of a job as steps over abstract arrays, and what each of them costs."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gift_jax import (
    cost_model,
    evaluate,
    label_codecs,
    losses,
    naming,
    optimizers,
    settings,
    students,
    teacher,
    train,
    views,
)
from gift_jax.data import info as info_lib
from gift_jax.labelling import needs_teacher

# Train and test images, by the pages of the datasets; of ImageNet's subsets about
# 1,300 and exactly 50 a class.
_IMAGES = {
    "digits": (1_437, 360),
    "cifar10": (50_000, 10_000),
    "cifar100": (50_000, 10_000),
    "mnist": (60_000, 10_000),
    "fashion_mnist": (60_000, 10_000),
    "tiny_imagenet": (100_000, 10_000),
    "imagenette": (9_469, 3_925),
    "imagewoof": (9_025, 3_929),
    "imagenet10": (13_000, 500),
    "imagenet100": (130_000, 5_000),
    "imagenet2012": (1_281_167, 50_000),
    "imagenet2012_64": (1_281_167, 50_000),
}
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


@dataclasses.dataclass(frozen=True)
class Workload:
    """What a config makes a machine do.

    Attributes:
      config: One of those of `settings.expand`.
      machine: What it runs on.
    """

    config: settings.Config
    machine: cost_model.Machine

    # --- Sizes ----------------------------------------------------------------------

    @functools.cached_property
    def info(self) -> info_lib.DatasetInfo:
        """The real dataset.

        Raises:
          ValueError: its size is not known before it is opened.
        """
        section = self.config.dataset
        if section.name not in _IMAGES:
            raise naming.unknown_name("dataset of known size", section.name, _IMAGES)
        info = info_lib.DATASETS[section.name]
        return dataclasses.replace(
            info,
            image_size=section.image_size or info.image_size,
            normalization=settings.normalization(section) or info.normalization,
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return (self.info.image_size, self.info.image_size, self.info.channels)

    @property
    def train_images(self) -> int:
        """Real images for teachers and distillation."""
        held_out = settings.validation_images(self.config)
        return _IMAGES[self.info.name][0] - held_out

    @property
    def test_images(self) -> int:
        """Real images that accuracies are measured on."""
        return _IMAGES[self.info.name][1]

    @property
    def distilled_images(self) -> int:
        """Images that students are trained on."""
        return self.info.num_classes * self.config.distilled.ipc

    @property
    def batch_size(self) -> int:
        """Images in a student's training step."""
        asked = self.config.train.batch_size
        return asked or train.official_batch_size(self.distilled_images)

    @property
    def training_devices(self) -> int:
        """Devices of one training, as `train.devices_for` chooses them.

        Raises:
          ValueError: the batch does not divide over them.
        """
        machine, batch_size = self.machine, self.batch_size
        for number in range(machine.host_devices, 0, -1):
            devices = number * machine.hosts
            if batch_size % devices == 0:
                return devices
            if self.config.train.batch_size:
                train.check_batch_size(batch_size, devices)
        raise ValueError(
            f"the official batch of {batch_size} does not divide over {machine.hosts} "
            "hosts: set train.batch_size to a multiple of their devices, or plan for "
            "one of them, which trains its share of the students with --shard"
        )

    @functools.cached_property
    def trainings(self) -> dict[str, int]:
        """How many trainings there are of every network."""
        found: dict[str, int] = {}
        tuning = self.config.tuning
        for setup in students.setups(self.config):
            count = len(setup)
            if tuning.enabled:
                count = 2 * count + len(tuning.factors) * len(tuning.seeds)
            found[setup[0].network] = found.get(setup[0].network, 0) + count
        return found

    @property
    def soft_label_bytes(self) -> int:
        """On disk; 0 where none are stored."""
        if self.config.relabel.source != "store":
            return 0
        return label_codecs.stored_bytes(
            label_codecs.get_codec(self.config.relabel.format),
            views=settings.views(self.config),
            num_images=self.distilled_images,
            num_classes=self.info.num_classes,
        )

    @property
    def resident_bytes(self) -> int:
        """Of test images that stay on one device."""
        test = math.prod(self.image_shape) * self.test_images
        per_device = math.ceil(test / self.machine.devices)
        return per_device if per_device <= evaluate.RESIDENT_BYTES else 0

    # --- Stages ---------------------------------------------------------------------

    def stages(self) -> Iterator[Stage]:
        """All stages, in order."""
        config = self.config
        if needs_teacher(config):
            if not config.teacher.checkpoint:
                yield self._teacher_training()
            yield self._evaluation(
                "test of the teacher", self.teacher.model, config.teacher.dtype, 1
            )
            if config.distilled.name == "rded" and not config.distilled.path:
                yield self._scoring()
            if config.relabel.source == "store":
                yield self._labelling(1)
            else:
                yield self._labelling(sum(self.trainings.values()))
        every = config.train.eval_every or max(config.train.epochs // 4, 1)
        evaluations = math.ceil(config.train.epochs / every)
        for network, times in self.trainings.items():
            yield self._training(network, times)
            model = settings.network(config.student, network, self.info)
            yield self._evaluation(
                f"tests of {network}", model, config.student.dtype, times * evaluations
            )

    def memory(self, network: str) -> cost_model.Memory:
        """What one device holds in a training step of a student."""
        step, arguments = self._training_step(network)
        return cost_model.memory(step, *arguments)

    @functools.cached_property
    def teacher(self) -> teacher.Teacher:
        """The teacher, with shapes in place of its variables."""
        section = self.config.teacher
        model = settings.network(section, section.name, self.info)
        return teacher.Teacher(
            name=section.name,
            model=model,
            variables=teacher.variable_shapes(model, self.image_shape),
            transform=settings.normalization(section) or self.info.normalization,
            top1=math.nan,
            fingerprint="",
        )

    def _teacher_training(self) -> Stage:
        section, devices = self.config.teacher, self.machine.devices
        spec = settings.teacher_training(self.config)
        train.check_batch_size(spec.batch_size, devices)
        step, arguments = self._step(
            self.teacher.model,
            spec.optimizer,
            losses.get_loss("ce"),
            section.augment,
            num_images=self.train_images,
            per_device=spec.batch_size // devices,
        )
        return self._stage(
            f"training of {section.name}, the teacher",
            images=spec.epochs * self.train_images,
            batch_size=spec.batch_size,
            flops=self._flops(step, *arguments),
            devices=devices,
            dtype=section.dtype,
        )

    def _scoring(self) -> Stage:
        """RDED's choice of crops, on one device."""
        section = self.config.distilled
        available = self.train_images // self.info.num_classes
        per_class = min(section.images_per_class, available)

        def score(variables: Any, pixels: jax.Array) -> jax.Array:
            inputs = self.info.normalization.apply(pixels)
            return self.teacher.logits(variables, inputs, self.info.normalization)

        pixels = _Shape((_SCORED_AT_ONCE, *self.image_shape), jnp.float32)
        return self._stage(
            "choice of crops (rded)",
            images=self.info.num_classes * per_class * section.crops_per_image,
            batch_size=_SCORED_AT_ONCE,
            flops=self._flops(score, self.teacher.variables, pixels),
            devices=1,
            dtype=self.config.teacher.dtype,
        )

    def _labelling(self, times: int) -> Stage:
        config, devices = self.config, self.machine.devices
        batch_size = min(config.relabel.batch_size, self.distilled_images)
        per_device = math.ceil(batch_size / self.machine.host_devices)
        view_images = self._view_images(config.augment)

        def label(variables: Any, data: Any, number: Any, indices: Any) -> jax.Array:
            images = view_images.images(data, number, indices)
            return self.teacher.logits(variables, images, self.info.normalization)

        flops = self._flops(
            label,
            self.teacher.variables,
            self._train_data(self.distilled_images),
            _Shape((), jnp.int32),
            _Shape((per_device,), jnp.int32),
        )
        return self._stage(
            "relabelling",
            images=times * settings.views(config) * self.distilled_images,
            batch_size=per_device * devices,
            flops=flops,
            devices=devices,
            dtype=config.teacher.dtype,
        )

    def _training(self, network: str, times: int) -> Stage:
        step, arguments = self._training_step(network)
        epochs = self.config.train.epochs
        return self._stage(
            f"training of {network}" + (f", {times} times" if times > 1 else ""),
            images=times * epochs * self.distilled_images,
            batch_size=self.batch_size,
            flops=self._flops(step, *arguments),
            devices=self.training_devices,
            dtype=self.config.student.dtype,
        )

    def _evaluation(self, name: str, model: nn.Module, dtype: str, times: int) -> Stage:
        devices = self.machine.devices
        batch_size = min(self.config.train.eval_batch_size, self.test_images)
        per_device = math.ceil(batch_size / devices)
        step = functools.partial(
            evaluate.eval_step, model=model, transform=self.info.normalization
        )
        flops = self._flops(
            step,
            teacher.variable_shapes(model, self.image_shape),
            _Shape((per_device, *self.image_shape), jnp.uint8),
            _Shape((per_device,), jnp.int32),
        )
        return self._stage(
            name,
            images=times * self.test_images,
            batch_size=per_device * devices,
            flops=flops,
            devices=devices,
            dtype=dtype,
        )

    # --- Steps ----------------------------------------------------------------------

    def _stage(
        self,
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
            peak=self.machine.chip.peak[dtype],
        )

    def _flops(self, step: Callable[..., Any], *arguments: Any) -> float:
        platform = self.machine.chip.platform
        return cost_model.flops(step, *arguments, platform=platform)

    def _training_step(self, network: str) -> tuple[Callable[..., Any], tuple]:
        setup = next(s for s in students.setups(self.config) if s[0].network == network)
        spec = setup[0]
        return self._step(
            settings.network(self.config.student, network, self.info),
            spec.optimizer,
            losses.get_loss(spec.loss, **dict(spec.loss_options)),
            self.config.augment,
            num_images=self.distilled_images,
            per_device=self.batch_size // self.training_devices,
        )

    def _step(
        self,
        model: nn.Module,
        optimizer: optimizers.OptimizerSpec,
        loss: losses.Loss,
        augment: settings.Config,
        *,
        num_images: int,
        per_device: int,
    ) -> tuple[Callable[..., Any], tuple]:
        """`train.train_step` and the shapes of its arguments."""
        state = jax.eval_shape(
            lambda key: train.create_train_state(
                model,
                optimizers.build_optimizer(optimizer, epochs=1, steps_per_epoch=1),
                self.image_shape,
                learning_rate=optimizer.learning_rate or 0.0,
                init_key=key,
                dropout_key=key,
            ),
            _key(),
        )
        logits = _Shape((num_images, self.info.num_classes), jnp.float16)
        step = functools.partial(
            train.train_step, loss=loss, view_images=self._view_images(augment)
        )
        return step, (
            state,
            self._train_data(num_images),
            views.View(_Shape((), jnp.int32), logits),
            _Shape((per_device,), jnp.int32),
        )

    def _view_images(self, section: settings.Config) -> views.AugmentedViews:
        spec = settings.augment_spec(section)
        return views.AugmentedViews(spec, self.info.normalization)

    def _train_data(self, num_images: int) -> views.TrainData:
        """A training set whose images are kept as 8-bit pixels."""
        return views.TrainData(
            images=_Shape((num_images, *self.image_shape), jnp.uint8),
            labels=_Shape((num_images,), jnp.int32),
            view_key=_key(),
        )


def _key() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0))
