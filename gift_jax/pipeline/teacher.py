"""The stage of the teacher: trained, imported, or user code."""

import dataclasses
import logging
import pathlib
import shutil
from typing import Any, NamedTuple

import flax.linen as nn

from gift_jax import evaluators, registry
from gift_jax.data import preprocess
from gift_jax.models.variables import check_shapes
from gift_jax.pipeline.context import Job
from gift_jax.pipeline.products import DONE_FILE, Product, file_fingerprint
from gift_jax.runtime import hosts
from gift_jax.runtime.errors import InputError
from gift_jax.specs import JobSpec
from gift_jax.specs.teacher import TORCHVISION, TeacherSpec
from gift_jax.teachers import (
    CallableTeacher,
    FlaxTeacher,
    Teacher,
    TorchTeacher,
    TransformedTeacher,
    check,
    ensemble,
    flax_teacher,
    torch_teacher,
)
from gift_jax.torch_io import checkpoints, torch_import
from gift_jax.train.teacher import DivergedError, train_teacher

_log = logging.getLogger(__name__)

# Subdirectory of a teacher's training checkpoints.
_CHECKPOINTS = "checkpoints"


class JobTeacher(NamedTuple):
    """The teacher of a job.

    Attributes:
      teacher: Labels views.
      evaluated: The same teacher behind the transform of its evaluation, if it has one.
      top1: Its accuracy on the real test split in percent.
    """

    teacher: Teacher
    evaluated: Teacher
    top1: float


def check_importable(spec: JobSpec, workdir: pathlib.Path) -> None:
    """Checks, before data are read, that what a teacher needs can be imported.

    Args:
      spec: Spec of the job.
      workdir: Work directory; torchvision teachers finished in it need no import.

    Raises:
      InputError: user code cannot be found.
      MissingPackageError: a package is missing; the message says how to install it.
    """
    if not spec.needs_teacher:
        return
    for member in spec.teacher.members:
        name = spec.tagged(member.label, "teacher")
        is_made = (workdir / "teacher" / name / DONE_FILE).exists()
        if torch_teacher.is_torch(member.name):
            torch_teacher.check_importable(member.name)
        elif member.network is None:
            registry.find("teacher", member.name, {})
        elif member.checkpoint == TORCHVISION and not is_made:
            checkpoints.torchvision_models(member.network.name)


def make_teacher(job: Job) -> JobTeacher:
    """Trains, imports or restores the teacher; its test accuracy is measured once.

    Raises:
      TeacherError: a teacher that was not trained here does not recognise real test
        images.
      WorkdirError: its weights are damaged.
    """
    spec = job.spec.teacher
    if spec.network is None:
        return _own_teacher(job)
    teacher, top1 = _average_teacher(job) if spec.also else _network_teacher(job)
    return _job_teacher(spec, teacher, top1)


def _network_teacher(job: Job) -> tuple[FlaxTeacher, float]:
    """A teacher of one network, and its test accuracy."""
    spec, data = job.spec.teacher, job.data
    assert spec.network is not None
    model = spec.build(data.info)
    transform = spec.preprocess or data.info.normalization
    recipe = {
        "dataset": job.dataset_recipe(),
        "network": dataclasses.asdict(spec.network),
        "normalization": dataclasses.asdict(transform),
        "training": spec.training.recipe if spec.training else None,
        "checkpoint": _checkpoint_recipe(spec.checkpoint),
        **_transform_recipe(spec),
    }
    name = job.spec.tagged(spec.label, "teacher")
    product = Product(job.workdir / "teacher" / name, recipe)
    with product.making_if_absent(resumable=spec.training is not None) as directory:
        if directory is not None:
            if spec.training:
                variables = _train(job, model, transform, directory)
            else:
                variables = _import(job, model)
            teacher = FlaxTeacher(name, model, variables, transform)
            accuracy = _test_accuracy(job, _evaluated(spec, teacher), transform)
            flax_teacher.save_teacher(directory, variables)
            product.finish(**accuracy, fingerprint=teacher.fingerprint)
            if hosts.is_primary():
                shutil.rmtree(directory / _CHECKPOINTS, ignore_errors=True)
    shape = _seen_shape(job)
    variables = flax_teacher.load_teacher(product.directory, model, shape)
    teacher = FlaxTeacher(name, model, variables, transform)
    return teacher, product.checked_record(teacher.fingerprint)["top1"]


def _average_teacher(job: Job) -> tuple[FlaxTeacher, float]:
    """The average of networks, each a product of its own, and its test accuracy."""
    spec = job.spec.teacher
    networks = [
        _network_teacher(job.with_spec(dataclasses.replace(job.spec, teacher=member)))
        for member in spec.members
    ]
    name = job.spec.tagged(spec.label, "teacher")
    teacher = ensemble.average(name, [network for network, _ in networks])
    of = {"teachers": [network.fingerprint for network, _ in networks]}
    return teacher, _measured(job, teacher, of, teacher.preprocess)


def _own_teacher(job: Job) -> JobTeacher:
    """A teacher of user code or PyTorch, whose weights are not kept here."""
    spec, data = job.spec.teacher, job.data
    teacher: Teacher
    if torch_teacher.is_torch(spec.name):
        teacher = TorchTeacher.load(
            spec.name,
            data.info,
            checkpoint=spec.checkpoint,
            preprocess=spec.preprocess,
        )
    else:
        teacher = CallableTeacher.load(spec.name, data.info)
    of = {"teacher": teacher.fingerprint}
    top1 = _measured(job, teacher, of, data.info.normalization)
    return _job_teacher(spec, teacher, top1)


def _measured(
    job: Job, teacher: Teacher, of: dict[str, Any], transform: preprocess.Preprocess
) -> float:
    """The test accuracy of a teacher whose weights are not kept here.

    Args:
      job: The job.
      teacher: The teacher.
      of: Part of the recipe that identifies its weights.
      transform: Preprocessing of the test images.
    """
    spec = job.spec.teacher
    recipe = {"dataset": job.dataset_recipe(), **of, **_transform_recipe(spec)}
    name = job.spec.tagged(spec.label, "teacher")
    product = Product(job.workdir / "teacher" / name, recipe)
    product.make_if_absent(
        lambda _: _test_accuracy(job, _evaluated(spec, teacher), transform),
        on_all_hosts=True,
    )
    return product.record()["top1"]


def _evaluated(spec: TeacherSpec, teacher: Teacher) -> Teacher:
    if not spec.transform:
        return teacher
    return TransformedTeacher(teacher, spec.transform)


def _job_teacher(spec: TeacherSpec, teacher: Teacher, top1: float) -> JobTeacher:
    evaluated = _evaluated(spec, teacher)
    if spec.transform:
        _log.info(
            "teacher %s: its accuracy is measured behind %s; views are labelled %s it",
            teacher.name,
            spec.transform,
            "behind" if spec.transform_views else "without",
        )
    return JobTeacher(evaluated if spec.transform_views else teacher, evaluated, top1)


def _transform_recipe(spec: TeacherSpec) -> dict[str, Any]:
    """Part of a recipe; empty without a transform, as in older recipes."""
    return {"transform": dataclasses.asdict(spec.transform)} if spec.transform else {}


def _test_accuracy(
    job: Job, teacher: Teacher, transform: preprocess.Preprocess
) -> dict[str, Any]:
    if job.spec.teacher.training is None:
        check.check_on_real(
            teacher, job.data, min_accuracy=job.spec.teacher.min_accuracy
        )
    evaluator = job.evaluator("accuracy", transform)
    assert isinstance(evaluator, evaluators.AccuracyEvaluator)
    accuracy = evaluator.measure_teacher(teacher)
    _log.info("teacher %s: top-1 %.2f%% on the test split", teacher.name, accuracy.top1)
    return dataclasses.asdict(accuracy)


def _seen_shape(job: Job) -> tuple[int, int, int]:
    """Shape of the images that the teacher's network is fed."""
    side = job.spec.teacher.transform.side(job.data.info.image_size)
    return (side, side, job.data.info.channels)


def _train(
    job: Job,
    model: nn.Module,
    transform: preprocess.Normalization,
    directory: pathlib.Path,
) -> dict[str, Any]:
    training = job.spec.teacher.training
    assert training is not None
    try:
        return train_teacher(
            model,
            job.data.train,
            training,
            transform,
            checkpoints_directory=directory / _CHECKPOINTS,
            devices=job.devices,
            workers=job.spec.dataset.workers,
        )
    except DivergedError:  # resuming would diverge again
        if hosts.is_primary():
            shutil.rmtree(directory)
        raise


def _checkpoint_recipe(path: str) -> str | None:
    if path == TORCHVISION:
        return f"torchvision {checkpoints.TORCHVISION_WEIGHTS}"
    return file_fingerprint(pathlib.Path(path)) if path else None


def _import(job: Job, model: nn.Module) -> dict[str, Any]:
    spec, dataset = job.spec.teacher, job.data.info
    assert spec.network is not None
    if spec.checkpoint != TORCHVISION:
        variables = torch_import.import_torch(
            spec.checkpoint,
            model=spec.network.name,
            num_classes=dataset.num_classes,
            image_size=_seen_shape(job)[0],
            **dict(spec.network.options),
        )
        # The file decides the number of channels, which may not be that of the images.
        expected = flax_teacher.variable_shapes(model, _seen_shape(job))
        check_shapes(variables, like=expected, origin=spec.checkpoint)
        return variables
    if dataset.num_classes != 1000:
        raise InputError(
            "teacher.checkpoint is 'torchvision', whose weights are for the 1000 "
            f"classes of ImageNet-1k, but {dataset.name} has {dataset.num_classes}: "
            "give the path of a checkpoint, or leave it empty to train a teacher"
        )
    return torch_import.import_torchvision(
        spec.network.name, image_size=_seen_shape(job)[0]
    )
