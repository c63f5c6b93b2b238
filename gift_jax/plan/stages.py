"""The stages of a job as steps over abstract arrays, batched as the pipeline does."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gift_jax import distill, losses, registry
from gift_jax.data import info as info_lib
from gift_jax.distill import rded
from gift_jax.distill.matching import datm, dc, trajectories
from gift_jax.distill.matching.base import Matching
from gift_jax.distill.recovery import loop, real_statistics
from gift_jax.distill.recovery.base import Recovery
from gift_jax.evaluators.accuracy import count_hits
from gift_jax.evaluators.answers import answer
from gift_jax.evaluators.batches import RESIDENT_BYTES
from gift_jax.plan.cost_model import Machine, Stage
from gift_jax.runtime.devices import padded_batches
from gift_jax.soft_labels import codecs, views
from gift_jax.soft_labels.store import rows_of_chunks
from gift_jax.specs import JobSpec, NetworkSpec, StudentSpec, TeacherSpec, base
from gift_jax.teachers import FlaxTeacher, ensemble
from gift_jax.teachers.flax_teacher import variable_shapes
from gift_jax.train import batches
from gift_jax.train.step import new_student, train_step
from gift_jax.train.teacher import TrainingSpec

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
# Stands for an array wherever nothing is computed.
_Shape: Any = jax.ShapeDtypeStruct
# Both have `build`, `label` and `dtype`.
Network = NetworkSpec | TeacherSpec


class Trainings(NamedTuple):
    """Students that differ in seed and learning rate, and where they are measured."""

    first: StudentSpec
    students: int
    split: str


@dataclasses.dataclass(frozen=True)
class Workload:
    """A job, one of those of `specs.expand`, on a machine."""

    spec: JobSpec
    machine: Machine

    @functools.cached_property
    def info(self) -> info_lib.DatasetInfo:
        """The real dataset.

        Raises:
          InputError: its size is not known before it is opened.
        """
        given = self.spec.dataset
        name = info_lib.ALIASES.get(given.name.lower(), given.name)
        if name not in _IMAGES:
            raise registry.unknown_name("dataset of known size", name, _IMAGES)
        info = info_lib.DATASETS[name]
        normalization = base.normalization("dataset", given.mean, given.std)
        return dataclasses.replace(
            info,
            image_size=given.image_size or info.image_size,
            normalization=normalization or info.normalization,
        )

    @property
    def real_images(self) -> dict[str, int]:
        """How many there are in the splits "train", "validation" and "test"."""
        train, test = _IMAGES[self.info.name]
        held_out = self.spec.dataset.validation_images
        return {"train": train - held_out, "validation": held_out, "test": test}

    @property
    def distilled_images(self) -> int:
        """Images that students are trained on."""
        classes, continual = self.info.num_classes, self.spec.continual
        if continual is not None:
            classes = continual.step * continual.classes_per_step(classes)
        return classes * self.spec.distilled.ipc

    @functools.cached_property
    def trainings(self) -> dict[NetworkSpec, list[Trainings]]:
        """All students by network; of tuning the rates that are tried in any case."""
        tuning = self.spec.tuning
        found: dict[NetworkSpec, list[Trainings]] = {}
        for first, *others in self.spec.setups:
            of_network = found.setdefault(first.network, [])
            of_network.append(Trainings(first, 1 + len(others), "test"))
            if tuning.enabled:
                tried = len(tuning.factors) * len(tuning.seeds)
                validated = Trainings(first, tried, "validation")
                of_network += [validated, of_network[-1]]
        return found

    @property
    def at_once(self) -> int:
        """The most students that train at once."""
        at_once = self.spec.train.at_once_on(self.machine.chip.platform)
        trainings = itertools.chain(*self.trainings.values())
        return min(at_once, max(t.students for t in trainings))

    @property
    def soft_label_bytes(self) -> int:
        """Of those that are stored."""
        if self.spec.relabel.source not in ("store", "fixed"):
            return 0
        return codecs.stored_bytes(
            codecs.get_codec(self.spec.relabel.format),
            views=self.stored_views,
            num_images=self.distilled_images,
            num_classes=self.info.num_classes,
        )

    @property
    def stored_views(self) -> int:
        """Views of every image that are labelled before students train."""
        return 1 if self.spec.relabel.source == "fixed" else self.spec.views

    @property
    def resident_bytes(self) -> int:
        """Of test images that stay on one device."""
        test = math.prod(self.info.image_shape) * self.real_images["test"]
        per_device = math.ceil(test / self.machine.devices)
        return per_device if per_device <= RESIDENT_BYTES else 0

    def stages(self) -> Iterator[Stage]:
        """All stages that can be counted, in order.

        Raises:
          InputError: a batch size that does not divide.
        """
        spec, teacher = self.spec, self.spec.teacher
        if teacher.network and spec.needs_teacher:
            for member in teacher.members:
                if member.training:
                    name = f"training of {member.label}, the teacher"
                    loss = losses.get_loss("ce")
                    yield self._training(name, member, member.training, loss)
                if teacher.also:
                    yield self._test(f"test of {member.label}", member, "test", times=1)
            yield self._test("test of the teacher", teacher, "test", times=1)
        yield from self._distillation()
        if teacher.network and spec.relabel.needs_teacher:
            yield self._relabelling(teacher)
        tests = math.ceil(spec.train.epochs / spec.train.evaluate_every)
        splits = (("tests", "test", tests), ("validation", "validation", 1))
        for network, trainings in self.trainings.items():
            yield self.student_training(network)
            for name, split, times in splits:
                times *= sum(t.students for t in trainings if t.split == split)
                if times and "accuracy" in spec.train.evaluators:
                    yield self._test(
                        f"{name} of {network.label}", network, split, times
                    )

    def left_out(self) -> Iterator[str]:
        """What has no network of this project to count."""
        spec = self.spec
        if spec.needs_teacher and spec.teacher.network is None:
            yield f"the teacher {spec.teacher.name}: its test, and all that it labels"
        known = (
            *(distill.Random, distill.Rded, Recovery, Matching, distill.Datm),
            type(None),
        )
        if not isinstance(spec.distilled.distiller, known):
            yield f"the distiller {spec.distilled.name}"
        for name in spec.train.evaluators:
            if name != "accuracy":
                yield f"the evaluator {name}"

    def _distillation(self) -> Iterator[Stage]:
        """What the distiller does, with a teacher of this project if it needs one."""
        teacher, distiller = self.spec.teacher, self.spec.distilled.distiller
        if isinstance(distiller, Matching):
            yield from self._matching(distiller)
        if isinstance(distiller, distill.Datm):
            yield from self._trajectory_matching(distiller)
        if not teacher.network:
            return
        if self.spec.distilled.needs("teacher_statistics"):
            steps = math.ceil(self.real_images["train"] / real_statistics.BATCH)
            for member in teacher.members:
                name = f"statistics of {member.label}"
                yield self._forward(name, member, steps, real_statistics.BATCH, 1)
        if isinstance(distiller, distill.Edc):
            yield self._crops(teacher, distiller.first(self.info))
        if isinstance(distiller, distill.Rded):
            yield self._crops(teacher, distiller)
        if isinstance(distiller, Recovery):
            yield from self._recovery(teacher, distiller)

    def student_training(self, network: NetworkSpec) -> Stage:
        """All trainings of a network, with the first loss and optimizer it has."""
        first = self.trainings[network][0].first
        times = sum(t.students for t in self.trainings[network])
        batch_size, _ = batches.student_batches(
            self.spec.train.batch_size, self.distilled_images, **self.machine.places
        )
        spec = TrainingSpec(
            first.optimizer,
            epochs=times * self.spec.train.epochs,
            batch_size=batch_size,
            augmentation=self.spec.augment,
            seed=first.seed,
        )
        name = f"training of {network.label}" + f", {times} times" * (times > 1)
        logits = _Shape((self.distilled_images, self.info.num_classes), jnp.float16)
        return self._training(name, network, spec, first.loss.build(), logits)

    def _training(
        self, name: str, network: Network, spec: TrainingSpec, loss: losses.Loss,
        logits: Any = None,
    ) -> Stage:  # fmt: skip
        """A training on images that are kept as 8-bit pixels."""
        num_images = self.real_images["train"] if logits is None else len(logits)
        data = views.TrainData(
            images=_Shape((num_images, *self.info.image_shape), jnp.uint8),
            labels=_Shape((num_images,), jnp.int32),
            view_key=jax.eval_shape(jax.random.key, 0),
        )
        new_state = functools.partial(
            new_student, network.build(self.info), spec.optimizer, data,
            epochs=spec.epochs, batch_size=spec.batch_size,
        )  # fmt: skip
        view_images = views.AugmentedViews(spec.augmentation, self.info.normalization)
        used = batches.devices_used(spec.batch_size, **self.machine.places)
        devices = self.machine.hosts * used
        per_device, rest = spec.batch_size // devices, num_images % spec.batch_size
        return Stage(
            name,
            functools.partial(train_step, loss=loss, view_images=view_images),
            (
                jax.eval_shape(new_state),
                data,
                views.View(_Shape((), jnp.int32), logits),
                _Shape((per_device,), jnp.int32),
            ),
            spec.epochs * batches.steps_per_epoch(num_images, spec.batch_size),
            per_device,
            devices,
            network.dtype,
            self.machine,
            # All devices compute the whole of the rest of an epoch.
            saved=spec.epochs * (1 - rest / per_device) if rest else 0.0,
        )

    def _test(self, name: str, network: Network, split: str, times: int) -> Stage:
        """A network on a split; the last batches are padded."""
        batch_size, places = self.spec.train.eval_batch_size, self.machine.places
        steps, size = padded_batches(self.real_images[split], batch_size, **places)
        return self._forward(name, network, times * steps, size, self.machine.devices)

    def _crops(self, network: Network, spec: distill.Rded) -> Stage:
        """The teacher on crops, class by class on one device."""
        classes = self.info.num_classes
        images = min(spec.images_per_class, self.real_images["train"] // classes)
        steps = classes * math.ceil(images * spec.crops_per_image / rded.BATCH)
        return self._forward("choice of crops (rded)", network, steps, rded.BATCH, 1)

    def _recovery(self, teacher: TeacherSpec, spec: Recovery) -> Iterator[Stage]:
        """Iterations of all batches, on the devices of one host; teacher by teacher."""
        info, model = self.info, teacher.build(self.info)
        variables = variable_shapes(model, info.image_shape)
        network = FlaxTeacher(spec.name, model, variables, info.normalization)
        real = [
            real_statistics.shapes(member, info) for member in ensemble.members(network)
        ]
        method = spec.method(network, info.normalization, info, real)
        sizes = [len(b) for b in loop.make_batches(info.num_classes, spec.ipc, method)]
        devices = min(self.machine.host_devices, len(sizes))
        images = _Shape((sizes[0], *info.image_shape), jnp.float32)
        labels, turns = _Shape((sizes[0],), jnp.int32), len(method.objectives)
        for number, objective in enumerate(method.objectives):

            def step(variables: Any, state: Any, labels: Any, of: Any) -> Any:
                key, first = jax.random.key(0), jnp.int32(0)
                return loop.step(
                    state, key, labels, variables, first, objective=of, method=method
                )

            name = f"recovery ({spec.name})"
            iterations = len(range(number, method.iterations, turns))
            yield Stage(
                name if turns == 1 else f"{name}, {teacher.members[number].label}",
                functools.partial(step, of=objective),
                (
                    method.variables[number],
                    jax.eval_shape(method.start, images),
                    labels,
                ),
                math.ceil(len(sizes) / devices) * iterations,
                sizes[0],
                devices,
                teacher.dtype,
                self.machine,
            )

    def _matching(self, spec: Matching) -> Iterator[Stage]:
        """Steps of the images, on one device, and the training of DC's networks."""
        info, name = self.info, type(spec).__name__.lower()
        classes, steps = info.num_classes, spec.iterations * spec.steps
        of_class = min(spec.batch_size, self.real_images["train"] // classes)
        pixels = _Shape((classes * spec.ipc, *info.image_shape), jnp.uint8)
        real = _Shape((classes, of_class, *info.image_shape), jnp.uint8)
        key, done = jax.eval_shape(jax.random.key, 0), _Shape((), jnp.int32)
        state = jax.eval_shape(functools.partial(spec.start, info), pixels)
        make = spec.make_step(info)
        stage = functools.partial(
            Stage, devices=1, dtype="float32", machine=self.machine
        )
        yield stage(
            f"matching ({name})",
            lambda state, key, done, real: make(state, real, key, done),
            (state, key, done, real),
            steps=steps,
            per_device=classes * (of_class + spec.ipc),
        )
        if isinstance(spec, distill.Dc) and spec.steps > 1:
            # XLA counts a loop's body once, and the step above has that of the epochs.
            labels = _Shape((classes * spec.ipc,), jnp.int32)
            train = functools.partial(dc.train, spec.network(info), epochs=1)
            yield stage(
                f"training of networks ({name})",
                lambda state, key, labels: train(
                    state.memory, state.images, labels, key
                ),
                (state, key, labels),
                steps=steps * (spec.loops[1] - 1),
                per_device=classes * spec.ipc,
            )

    def _trajectory_matching(self, spec: distill.Datm) -> Iterator[Stage]:
        """The experts, and on one device all steps on the images, there and back."""
        info, constants = self.info, spec.constants(self.info)
        experts = spec.experts_of(info, self.spec.seed)
        name, options = experts.network_options(info)
        network = NetworkSpec(name, "float32", tuple(sorted(options.items())))
        training = experts.training
        every = dataclasses.replace(training, epochs=experts.count * training.epochs)
        loss = losses.get_loss("ce")
        yield self._training("training of experts (datm)", network, every, loss)
        num_images, weights = self.distilled_images, experts.size(info)
        learnt = trajectories.Learnt(
            _Shape((num_images, *info.image_shape), jnp.float32),
            _Shape((num_images, info.num_classes), jnp.float32),
            _Shape((), jnp.float32),
        )
        state = jax.eval_shape(
            lambda learnt: datm.State(learnt, spec.optimizer(info).init(learnt)), learnt
        )
        step = spec.make_step(info)
        yield Stage(
            "matching (datm)",
            lambda state, start, target, key, batches: step(
                state, trajectories.Part(start, target, batches, key)
            ),
            (
                state,
                *[_Shape((weights,), jnp.float32)] * 2,
                jax.eval_shape(jax.random.key, 0),
                # XLA counts a loop's body once, so this is an iteration of one step.
                _Shape((1, constants.batch_size), jnp.int32),
            ),
            steps=spec.iterations * constants.syn_steps,
            per_device=constants.batch_size,
            devices=1,
            dtype="float32",
            machine=self.machine,
        )

    def _relabelling(self, network: Network) -> Stage:
        """The teacher on all views; the last batch of every chunk is padded."""
        images, local = self.distilled_images, self.machine.host_devices
        batch_size, devices = self.spec.relabel.batch_size, self.machine.devices
        steps, size = padded_batches(images, batch_size, local_devices=local)
        if self.spec.relabel.source == "online":
            # By every host, and once for students that train at once.
            trainings = itertools.chain(*self.trainings.values())
            steps *= sum(math.ceil(t.students / self.at_once) for t in trainings)
            steps, devices = steps * self.spec.train.epochs, local
        else:
            rows = rows_of_chunks(images, self.info.num_classes)
            starts = [*range(0, images, rows)] * self.stored_views
            chunks = [min(rows, images - s) for s in starts[:: self.machine.hosts]]
            steps = sum(math.ceil(chunk / (size * local)) for chunk in chunks)
        return self._forward("relabelling", network, steps, size, devices)

    def _forward(
        self, name: str, network: Network, steps: int, per_device: int, devices: int
    ) -> Stage:
        """Forward passes; making the crops or views, a few percent, is not counted."""
        model, transform = network.build(self.info), self.info.normalization
        return Stage(
            name,
            functools.partial(
                answer, model=model, transform=transform, reduce=count_hits
            ),
            (
                variable_shapes(model, self.info.image_shape),
                _Shape((per_device, *self.info.image_shape), jnp.uint8),
                _Shape((per_device,), jnp.int32),
            ),
            steps,
            per_device,
            devices,
            network.dtype,
            self.machine,
        )
