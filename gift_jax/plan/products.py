"""The products of a job: what makes them, what they are known by, their size."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax

from gift_jax import distill
from gift_jax.data.info import DatasetInfo
from gift_jax.distill.matching.base import Matching
from gift_jax.plan import distilling, stages
from gift_jax.plan.cost_model import Stage, tree_bytes
from gift_jax.plan.datasets import RealData
from gift_jax.plan.workload import Trainings, Workload
from gift_jax.specs import JobSpec, TeacherSpec
from gift_jax.teachers.flax_teacher import variable_shapes
from gift_jax.train.step import new_student

_WEIGHT_BYTES = 4  # of experts, which are float32


class Product(NamedTuple):
    """What a part of the pipeline leaves in the work directory.

    Attributes:
      name: What it is, for readers.
      key: What it is known by: of jobs with the same key, the first makes it for all.
        It has the names of directories, and the parts of a config that recipes have.
      stages: The stages that make it.
      size: Size in bytes, before compression.
    """

    name: str
    key: str
    stages: Callable[[], Iterable[Stage]]
    size: Callable[[], int]


def products(work: Workload) -> Iterator[Product]:
    """All products of a job, in the order in which they are made."""
    spec = work.spec
    of_all = spec.needs_teacher_of_all_classes and spec.teacher.network is not None
    if of_all:
        yield from _teacher(work, spec, work.real, "the teacher")
    if of_all and spec.distilled.needs("teacher_statistics"):
        yield from map(functools.partial(_statistics, work), spec.teacher.members)
    if spec.distilled.needs("experts"):
        yield _experts(work)
    yield _distilled(work)
    if work.spec.is_retrained:
        yield from _teacher(work, spec.at_step(), work.seen, "the retrained teacher")
    if work.spec.relabel.is_stored:
        yield _soft_labels(work)
    yield _students(work)


def _teacher(
    work: Workload, spec: JobSpec, data: RealData, kind: str
) -> Iterator[Product]:
    """Products of each network, and of all together, without weights of their own."""
    several = bool(spec.teacher.also)
    for member in spec.teacher.members:
        yield Product(
            kind,
            _teacher_key(spec, member),
            functools.partial(
                stages.teacher_network, work, member, data, kind, is_tested=several
            ),
            functools.partial(_weights, member, data.info),
        )
    yield Product(
        kind,
        f"test {_teacher_key(spec, spec.teacher)}",
        lambda: [stages.test(work, f"test of {kind}", spec.teacher, data)],
        lambda: 0,
    )


def _teacher_key(spec: JobSpec, teacher: TeacherSpec) -> str:
    recipe = dataclasses.replace(teacher, min_accuracy=None)
    return _key("teacher", spec.tagged(teacher.label, "teacher"), spec.dataset, recipe)


def _weights(teacher: TeacherSpec, info: DatasetInfo) -> int:
    shape = stages.seen(teacher, info).image_shape
    return tree_bytes(variable_shapes(teacher.build(info), shape))


def _statistics(work: Workload, member: TeacherSpec) -> Product:
    return Product(
        "statistics of real images",
        f"statistics {_teacher_key(work.spec, member)}",
        lambda: [distilling.statistics(work, member)],
        lambda: tree_bytes(distilling.statistics_shapes(work, member)),
    )


def _experts(work: Workload) -> Product:
    """A row of weights before the first epoch, and after every one."""
    experts, info = distilling.experts_of(work), work.real.info
    return Product(
        "experts",
        _key("experts", work.spec.dataset, experts),
        lambda: [distilling.experts(work)],
        lambda: (
            experts.count * (experts.epochs + 1) * experts.size(info) * _WEIGHT_BYTES
        ),
    )


def _distilled(work: Workload) -> Product:
    """Images of all classes, whatever the step; those of matching are float32."""
    spec, info = work.spec.distilled, work.real.info
    are_floats = isinstance(spec.distiller, (Matching, distill.Datm))
    pixels = info.num_classes * spec.ipc * math.prod(info.image_shape)
    return Product(
        "distilled images",
        _distilled_key(work.spec),
        lambda: distilling.distillation(work),
        lambda: pixels * (4 if are_floats else 1),
    )


def _distilled_key(spec: JobSpec) -> str:
    tag = spec.tagged("", "distilled")
    by = _teacher_key(spec, spec.teacher) if spec.distilled.needs("teacher") else None
    return _key("distilled", tag, spec.dataset, spec.seed, spec.distilled, by)


def _soft_labels(work: Workload) -> Product:
    spec = work.spec.at_step()
    relabel, network = spec.relabel, spec.teacher.network
    key = _key(
        spec.tagged("", "soft_labels"),
        *(_distilled_key(work.spec), _teacher_key(spec, spec.teacher)),
        *(spec.augment, relabel.source, relabel.format, spec.labelled_views),
    )
    return Product(
        f"soft labels in {relabel.format}",
        f"soft labels {key}",
        lambda: [stages.relabelling(work)] if network else [],
        lambda: work.soft_label_bytes,
    )


def _students(work: Workload) -> Product:
    """All students of a job, whose labels may be made during training."""
    spec = work.spec

    def made_by() -> Iterator[Stage]:
        if spec.relabel.source == "online" and spec.teacher.network:
            yield stages.relabelling(work)
        for network in work.trainings:
            yield stages.student_training(work, network)
            yield from stages.student_tests(work, network)

    return Product(
        "checkpoints of students",
        _key("students", spec.upstream, spec.train, spec.tuning, spec.setups),
        made_by,
        lambda: sum(
            _checkpoints(work, one) for of in work.trainings.values() for one in of
        ),
    )


def _checkpoints(work: Workload, trainings: Trainings) -> int:
    """Bytes of some students' checkpoints: the latest and the best, if as many exist.

    Each has weights and the state of the optimizer, and the weights that are evaluated
    where these are different ones.
    """
    train, info, first = work.spec.train, work.student_info, trainings.first
    is_tested = trainings.split == "test"
    every = train.evaluate_every if is_tested else train.epochs
    due = {train.epochs, *range(every, train.epochs, every)}
    if train.checkpoint_every:
        due |= set(range(train.checkpoint_every, train.epochs, train.checkpoint_every))

    def saved() -> Any:
        state = new_student(
            first.network.build(info), first.optimizer,
            stages.resident_data(work.distilled_images, info), epochs=train.epochs,
            batch_size=train.batch_size_for(work.distilled_images),
        )  # fmt: skip
        evaluated = state.evaluation_variables
        is_other = evaluated["params"] is not state.params
        return state.variables, state.opt_state, evaluated if is_other else ()

    kept = min(len(due), train.keep_checkpoints + 1)
    return trainings.students * kept * tree_bytes(jax.eval_shape(saved))


def _key(*parts: Any) -> str:
    return repr(parts)
