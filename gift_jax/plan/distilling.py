"""The stages of distillers, with teachers of this project."""

import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from gift_jax import distill, losses, streams
from gift_jax.distill import rded
from gift_jax.distill.matching import datm, dc, dm, trajectories
from gift_jax.distill.matching.base import Matching, draw_network
from gift_jax.distill.matching.experts import Experts
from gift_jax.distill.recovery import loop, real_statistics
from gift_jax.distill.recovery.base import Recovery
from gift_jax.distill.recovery.real_statistics import RealLayer
from gift_jax.plan.cost_model import Stage, tree_bytes
from gift_jax.plan.stages import Shape, forward, resident_data, training
from gift_jax.plan.workload import Workload
from gift_jax.soft_labels import views
from gift_jax.specs import NetworkSpec, TeacherSpec
from gift_jax.teachers import FlaxTeacher, ensemble
from gift_jax.teachers.flax_teacher import variable_shapes


def distillation(work: Workload) -> Iterator[Stage]:
    """What the distiller does, except statistics and experts, which are products."""
    teacher, distiller = work.spec.teacher, work.spec.distilled.distiller
    if isinstance(distiller, Matching):
        yield from _matching(work, distiller)
    if isinstance(distiller, distill.Datm):
        yield _trajectory_matching(work, distiller)
    if not teacher.network:
        return
    if isinstance(distiller, distill.Edc):
        yield _crops(work, distiller.first(work.real.info))
    if isinstance(distiller, distill.Rded):
        yield _crops(work, distiller)
    if isinstance(distiller, Recovery):
        yield from _recovery(work, distiller)


def statistics(work: Workload, member: TeacherSpec) -> Stage:
    """One pass of a teacher's network over the train split, on one device."""
    steps = math.ceil(work.real.images["train"] / real_statistics.BATCH)
    name, info = f"statistics of {member.label}", work.real.info
    return forward(
        work.machine, name, member, info, steps, real_statistics.BATCH, devices=1
    )


def statistics_shapes(work: Workload, member: TeacherSpec) -> list[RealLayer]:
    """What is measured of a teacher's network."""
    network = _flax_teacher(work, member)
    return real_statistics.shapes(network, work.real.info)


def experts(work: Workload) -> Stage:
    """Trainings of all experts on the train split, which devices keep as float32."""
    found, info = experts_of(work), work.real.info
    name, options = found.network_options(info)
    network = NetworkSpec(name, "float32", tuple(sorted(options.items())))
    return training(
        work.machine,
        "training of experts (datm)",
        network,
        found.training,
        losses.get_loss("ce"),
        info,
        resident_data(work.real.images["train"], info, jnp.float32),
        view_images=views.AugmentedViews(found.augmentation, None),
    ).repeated(found.count)


def experts_of(work: Workload) -> Experts:
    """How the distiller's experts are trained."""
    distiller: Any = work.spec.distilled.distiller
    return distiller.experts_of(work.real.info, work.spec.seed)


def _flax_teacher(work: Workload, teacher: TeacherSpec) -> FlaxTeacher:
    """A teacher with shapes in place of weights."""
    info, model = work.real.info, teacher.build(work.real.info)
    variables = variable_shapes(model, info.image_shape)
    return FlaxTeacher(teacher.label, model, variables, info.normalization)


def _crops(work: Workload, spec: distill.Rded) -> Stage:
    """The teacher on crops, class by class on one device."""
    info = work.real.info
    of_class = work.real.images["train"] // info.num_classes
    images = min(spec.images_per_class, of_class)
    each = math.ceil(images * spec.crops_per_image / rded.BATCH)
    return forward(
        work.machine,
        "choice of crops (rded)",
        work.spec.teacher,
        info,
        info.num_classes * each,
        rded.BATCH,
        devices=1,
    )


def _recovery(work: Workload, spec: Recovery) -> Iterator[Stage]:
    """Iterations of all batches, on all devices; teacher by teacher."""
    info, teacher = work.real.info, work.spec.teacher
    network = _flax_teacher(work, teacher)
    real = [real_statistics.shapes(one, info) for one in ensemble.members(network)]
    method = spec.method(network, info.normalization, info, real)
    sizes = [len(b) for b in loop.make_batches(info.num_classes, spec.ipc, method)]
    devices = min(work.machine.devices, len(sizes))
    images = Shape((sizes[0], *info.image_shape), jnp.float32)
    labels, turns = Shape((sizes[0],), jnp.int32), len(method.objectives)
    for number, objective in enumerate(method.objectives):

        def step(state: Any, variables: Any, labels: Any, of: Any) -> Any:
            key, first = streams.key(0), jnp.int32(0)
            return loop.step(
                state, key, labels, variables, first, objective=of, method=method
            )

        name, variables = f"recovery ({spec.name})", method.variables[number]
        iterations = len(range(number, method.iterations, turns))
        yield Stage(
            name if turns == 1 else f"{name}, {teacher.members[number].label}",
            functools.partial(step, of=objective),
            (jax.eval_shape(method.start, images), variables, labels),
            math.ceil(len(sizes) / devices) * iterations,
            sizes[0],
            devices,
            teacher.dtype,
            work.machine,
            # Variables of the other teachers, whose turns are in the same program.
            resident=tree_bytes(method.variables) - tree_bytes(variables),
        )


def _matching(work: Workload, spec: Matching) -> Iterator[Stage]:
    """Steps of the images, on one device, and the training of DC's networks."""
    info, name = work.real.info, type(spec).__name__.lower()
    classes, steps = info.num_classes, spec.iterations * spec.steps
    of_class = min(spec.batch_size, work.real.images["train"] // classes)
    pixels = Shape((classes * spec.ipc, *info.image_shape), jnp.uint8)
    real = Shape((classes, of_class, *info.image_shape), jnp.uint8)
    key, done = jax.eval_shape(jax.random.key, 0), Shape((), jnp.int32)
    state = jax.eval_shape(functools.partial(spec.start, info), pixels)
    make = spec.make_step(info)
    stage = functools.partial(
        Stage,
        devices=1,
        dtype="float32",
        machine=work.machine,
        program=f"matching ({name})",
    )
    yield stage(
        f"matching ({name})",
        lambda state, key, done, real: make(state, real, key, done),
        (state, key, done, real),
        steps=steps,
        per_device=classes * (of_class + spec.ipc),
    )
    if isinstance(spec, distill.Dm):
        # XLA counts a loop's body once, and the step above has that of one class.
        model = spec.network(info)
        yield stage(
            f"features of real images ({name})",
            lambda key, real: dm.real_mean(
                model, draw_network(model, key, info), info, key, real
            ),
            (key, Shape(real.shape[1:], real.dtype)),
            steps=steps * (classes - 1),
            per_device=of_class,
        )
    if isinstance(spec, distill.Dc) and spec.steps > 1:
        # XLA counts a loop's body once, and the step above has that of the epochs.
        labels = Shape((classes * spec.ipc,), jnp.int32)
        train = functools.partial(dc.train, spec.network(info), epochs=1)
        yield stage(
            f"training of networks ({name})",
            lambda state, key, labels: train(state.memory, state.images, labels, key),
            (state, key, labels),
            steps=spec.iterations * ((spec.steps - 1) * spec.loops[1] - spec.steps),
            per_device=classes * spec.ipc,
        )


def _trajectory_matching(work: Workload, spec: distill.Datm) -> Stage:
    """All steps on the images, forward and backward, on one device."""
    info, constants = work.real.info, spec.constants(work.real.info)
    num_images, weights = info.num_classes * spec.ipc, experts_of(work).size(info)
    learnt = trajectories.Learnt(
        Shape((num_images, *info.image_shape), jnp.float32),
        Shape((num_images, info.num_classes), jnp.float32),
        Shape((), jnp.float32),
    )
    state = jax.eval_shape(
        lambda learnt: datm.State(learnt, spec.optimizer(info).init(learnt)), learnt
    )
    step = spec.make_step(info)

    def arguments(steps: int) -> tuple[Any, ...]:
        return (
            state,
            *[Shape((weights,), jnp.float32)] * 2,
            jax.eval_shape(jax.random.key, 0),
            Shape((steps, constants.batch_size), jnp.int32),
        )

    return Stage(
        "matching (datm)",
        lambda state, start, target, key, batches: step(
            state, trajectories.Part(start, target, batches, key)
        ),
        arguments(1),
        steps=spec.iterations * constants.syn_steps,
        per_device=constants.batch_size,
        devices=1,
        dtype="float32",
        machine=work.machine,
        whole=arguments(constants.syn_steps),
    )
