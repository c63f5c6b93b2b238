"""The first stages: teacher and distilled dataset.

Every stage makes its product in the work directory, or finds it there.
"""

import contextlib
import dataclasses
import logging
import pathlib
import shutil
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from gift_jax import distilled as distilled_lib
from gift_jax import evaluators, registry
from gift_jax.data import preprocess, real
from gift_jax.distill.matching.experts import Experts, Trajectory, fingerprint_of
from gift_jax.distill.recovery.base import recoverable
from gift_jax.distill.recovery.real_statistics import RealLayer
from gift_jax.distilled import DistilledDataset, read_distilled
from gift_jax.distilled.readers import guess_source
from gift_jax.models.variables import check_shapes
from gift_jax.pipeline.products import Product, file_fingerprint
from gift_jax.pipeline.statistics import make_statistics
from gift_jax.runtime import hosts, preemption, progress
from gift_jax.runtime.checksums import fingerprint
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
    torch_teacher,
)
from gift_jax.teachers import flax_teacher as flax_teacher_lib
from gift_jax.torch_io import torch_import
from gift_jax.train.teacher import DivergedError, train_teacher

_log = logging.getLogger(__name__)

# The teachers of RDED and GIFT on ImageNet-1k.
_TORCHVISION_WEIGHTS = "IMAGENET1K_V1"
# Of a teacher in training.
_CHECKPOINTS = "checkpoints"
# Of images in the making.
_UNFINISHED = "unfinished"


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """What all stages and students of one job share.

    Attributes:
      spec: What is asked for.
      workdir: Where products lie.
      data: The real dataset.
      devices: Local devices.
    """

    spec: JobSpec
    workdir: pathlib.Path
    data: real.RealDataset
    devices: tuple[jax.Device, ...]
    _evaluators: dict[Any, evaluators.Evaluator] = dataclasses.field(
        default_factory=dict, repr=False
    )

    def with_spec(self, spec: JobSpec) -> "Job":
        """Another job on the same data, which shares its evaluators."""
        return dataclasses.replace(self, spec=spec)

    def evaluator(
        self,
        name: str,
        transform: preprocess.Preprocess,
        split: str = "test",
        teacher: Teacher | None = None,
    ) -> evaluators.Evaluator:
        """What measures something on a split under some preprocessing.

        Args:
          name: Of an evaluator.
          transform: From pixels to network inputs.
          split: "test" or "validation".
          teacher: To compare with.
        """
        images = self.data.test if split == "test" else self.data.validation
        if images is None:
            raise AssertionError("tuning holds images out of the train split")
        batch_size = self.spec.train.eval_batch_size
        continual, classes = self.spec.continual, self.data.info.num_classes
        context = evaluators.wanted(
            name,
            {
                "classes_per_step": continual and classes // continual.step,
                "teacher": teacher,
                "held_out": self.data.calibration,
            },
        )
        of_teacher = teacher.fingerprint if teacher and "teacher" in context else None
        key = (name, transform, split, batch_size, of_teacher)
        if key not in self._evaluators:
            self._evaluators[key] = evaluators.make_evaluator(
                name,
                images,
                transform,
                devices=hosts.devices(self.devices),
                batch_size=batch_size,
                workers=self.spec.dataset.workers,
                **context,
            )
        return self._evaluators[key]

    def dataset_recipe(self) -> dict[str, Any]:
        """What of the real dataset changes the products made from it."""
        return {
            **dataclasses.asdict(self.data.info),
            "images": self.data.fingerprint,
        }


class JobTeacher(NamedTuple):
    """A teacher.

    Attributes:
      teacher: Labels views.
      evaluated: The same behind the transform of its evaluation, if it has one.
      top1: Its accuracy on the real test split in percent.
    """

    teacher: Teacher
    evaluated: Teacher
    top1: float


def make_teacher(job: Job) -> JobTeacher:
    """Trains, imports or restores the teacher; its test accuracy is measured once.

    Raises:
      TeacherError: a teacher that was not trained here does not recognise real test
        images.
      WorkdirError: its weights are damaged.
    """
    spec = job.spec.teacher
    if spec.network is None:
        return _outside_teacher(job)
    teacher, top1 = _average_teacher(job) if spec.also else _network_teacher(job)
    return _job_teacher(spec, teacher, top1)


def _network_teacher(job: Job) -> tuple[FlaxTeacher, float]:
    """One network, and its test accuracy."""
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
            if hosts.is_primary():
                flax_teacher_lib.save_teacher(directory, variables)
            product.finish(**accuracy, fingerprint=teacher.fingerprint)
            if hosts.is_primary():
                shutil.rmtree(directory / _CHECKPOINTS, ignore_errors=True)
    shape = _seen_shape(job)
    variables = flax_teacher_lib.load_teacher(product.directory, model, shape)
    teacher = FlaxTeacher(name, model, variables, transform)
    return teacher, product.checked_record(teacher.fingerprint)["top1"]


def _average_teacher(job: Job) -> tuple[FlaxTeacher, float]:
    """Networks that are products of their own, as one teacher; its test accuracy."""
    spec = job.spec.teacher
    networks = [
        _network_teacher(job.with_spec(dataclasses.replace(job.spec, teacher=member)))
        for member in spec.members
    ]
    name = job.spec.tagged(spec.label, "teacher")
    teacher = ensemble.average(name, [network for network, _ in networks])
    recipe = {
        "dataset": job.dataset_recipe(),
        "teachers": [network.fingerprint for network, _ in networks],
        **_transform_recipe(spec),
    }
    product = Product(job.workdir / "teacher" / name, recipe)
    with product.making_if_absent() as directory:
        if directory is not None:
            evaluated = _evaluated(spec, teacher)
            product.finish(**_test_accuracy(job, evaluated, teacher.preprocess))
    return teacher, product.record()["top1"]


def _outside_teacher(job: Job) -> JobTeacher:
    """A teacher of the user's own, whose weights are not kept here."""
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
    recipe = {
        "dataset": job.dataset_recipe(),
        "teacher": teacher.fingerprint,
        **_transform_recipe(spec),
    }
    name = job.spec.tagged(spec.label, "teacher")
    product = Product(job.workdir / "teacher" / name, recipe)
    with product.making_if_absent() as directory:
        if directory is not None:
            evaluated = _evaluated(spec, teacher)
            product.finish(**_test_accuracy(job, evaluated, data.info.normalization))
    return _job_teacher(spec, teacher, product.record()["top1"])


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
    """Of a teacher without one, recipes are as they were."""
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
    """Of the images that the teacher's network is fed."""
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
    except DivergedError:  # which going on would not change
        if hosts.is_primary():
            shutil.rmtree(directory)
        raise


def _checkpoint_recipe(path: str) -> str | None:
    if path == TORCHVISION:
        return f"torchvision {_TORCHVISION_WEIGHTS}"
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
        # The file tells its channels, which may not be those of the images.
        expected = flax_teacher_lib.variable_shapes(model, _seen_shape(job))
        check_shapes(variables, like=expected, origin=spec.checkpoint)
        return variables
    if dataset.num_classes != 1000:
        raise InputError(
            "teacher.checkpoint is 'torchvision', whose weights are for the 1000 "
            f"classes of ImageNet-1k, but {dataset.name} has {dataset.num_classes}: "
            "give the path of a checkpoint, or leave it empty to train a teacher"
        )
    return torch_import.import_torchvision(
        spec.network.name, image_size=_seen_shape(job)[0], weights=_TORCHVISION_WEIGHTS
    )


class JobDistilled(NamedTuple):
    """A distilled dataset, and the name of its product."""

    name: str
    dataset: DistilledDataset


def make_distilled_and_teacher(job: Job) -> tuple[JobDistilled, JobTeacher | None]:
    """What students and their labels are made of; no teacher where none is needed.

    Raises: as `make_distilled` and `make_teacher`.
    """
    # What is wrong with published images is found before a teacher is trained.
    published = make_distilled(job, None) if job.spec.distilled.path else None
    teacher = make_teacher(job) if job.spec.needs_teacher_of_all_classes else None
    distilled = published or make_distilled(job, teacher.teacher if teacher else None)
    return distilled, teacher


def make_distilled(job: Job, teacher: Teacher | None) -> JobDistilled:
    """Makes or reads a distilled dataset, or loads it from the work directory.

    Args:
      job: Its distilled dataset is one.
      teacher: For distillers that need one.

    Raises:
      InputError: the distilled dataset does not belong to the real dataset.
      WorkdirError: its files are damaged.
    """
    spec = job.spec.distilled
    name = f"{spec.name}_ipc{spec.ipc}"
    recipe: dict[str, Any] = {"dataset": job.dataset_recipe(), "ipc": spec.ipc}
    if spec.distiller is None:
        recipe["source"] = [spec.source, registry.code_fingerprint(spec.source)]
        path = pathlib.Path(spec.path)
        recipe["path"] = file_fingerprint(path) if path.exists() else spec.path
    else:
        recipe["seed"] = job.spec.seed
        recipe["distiller"] = spec.recipe
    if spec.needs_teacher:
        assert teacher is not None
        recipe["teacher"] = teacher.fingerprint
        name += f"_{teacher.name}"
    name = job.spec.tagged(name, "distilled")
    product = Product(job.workdir / "distilled" / name, recipe)
    resumable = getattr(spec.distiller, "resumable", False)
    options: dict[str, Any] = {"teacher": teacher, "seed": job.spec.seed}
    if spec.needs_statistics and not product.is_finished():
        options["real"] = _real_statistics(job, teacher)
    if spec.needs_experts and not product.is_finished():
        options["experts"] = _experts(job)

    def make(directory: pathlib.Path) -> dict[str, Any]:
        made = _new_distilled(job, options, directory / _UNFINISHED)
        _check_belongs(made, job.data, spec.ipc)
        distilled_lib.save_distilled(made, directory)
        return {
            "images": len(made),
            "ipc": made.ipc,
            "fingerprint": made.fingerprint,
        }

    product.make_on_primary(make, resumable=resumable)
    if hosts.is_primary():
        shutil.rmtree(product.directory / _UNFINISHED, ignore_errors=True)
    dataset = distilled_lib.load_distilled(product.directory)
    product.checked_record(dataset.fingerprint)
    return JobDistilled(product.directory.name, dataset)


def _real_statistics(job: Job, teacher: Teacher | None) -> list[list[RealLayer]]:
    """Of every network of the teacher."""
    network, _ = recoverable(teacher, job.spec.distilled.name)
    found = []
    for spec, member in zip(
        job.spec.teacher.members, ensemble.members(network), strict=True
    ):
        name = job.spec.tagged(spec.label, "teacher")
        recipe = {"dataset": job.dataset_recipe(), "teacher": member.fingerprint}
        product = Product(job.workdir / "statistics" / name, recipe)
        named = dataclasses.replace(member, name=spec.label)
        found.append(make_statistics(product, named, job.data))
    return found


def _experts(job: Job) -> list[Trajectory]:
    """Trajectories of the distiller's experts, which others may have left there.

    Whatever distiller asks for the same finds them: the name has the fingerprint of
    their recipe.
    """
    distiller: Any = job.spec.distilled.distiller
    experts: Experts = distiller.experts_for(job.data, job.spec.seed)
    recipe = {"dataset": job.dataset_recipe(), "experts": experts.recipe}
    product = Product(job.workdir / "experts" / fingerprint(recipe), recipe)
    with product.making_if_absent(resumable=True) as directory:
        if directory is not None:
            made = experts.train(job.data, directory, devices=job.devices)
            product.finish(fingerprint=fingerprint_of(made))
    found = experts.open(job.data.info, product.directory)
    product.checked_record(fingerprint_of(found))
    return found


def _new_distilled(
    job: Job, options: dict[str, Any], unfinished: pathlib.Path
) -> DistilledDataset:
    spec = job.spec.distilled
    if spec.distiller is None:
        return read_distilled(
            spec.path,
            spec.source or guess_source(pathlib.Path(spec.path)),
            dataset=job.data.info,
            ipc=spec.ipc,
            train_images=(job.data.with_held_out or job.data.train).all_images,
            class_names=job.data.class_names,
            max_bytes=spec.max_bytes,
        )
    if getattr(spec.distiller, "resumable", False):
        options = {**options, "directory": unfinished}
    with contextlib.ExitStack() as stack:
        bar: progress.ProgressBar | None = None
        shown = 0

        def on_progress(done: int, total: int, **metrics: float) -> None:
            nonlocal bar, shown
            if bar is None:
                new = progress.ProgressBar(spec.name, total=total, unit="it", done=done)
                bar, shown = stack.enter_context(new), done
            bar.update(done - shown, **metrics)
            shown = done
            if preemption.requested() and done < total:
                raise preemption.PreemptedError

        return spec.distiller.make(job.data, on_progress=on_progress, **options)


def _check_belongs(dataset: DistilledDataset, data: real.RealDataset, ipc: int) -> None:
    if dataset.ipc != ipc:  # such as of a distiller of the user's own
        raise InputError(
            f"the distilled dataset holds {dataset.ipc} images of a class, but "
            f"distilled.ipc is {ipc}, by which it would be named"
        )
    if dataset.metadata.num_classes != data.info.num_classes:
        raise InputError(
            f"the distilled dataset has {dataset.metadata.num_classes} classes, but "
            f"{data.info.name} has {data.info.num_classes}"
        )
    expected = data.info.image_shape
    if dataset.images.shape[1:] != expected:
        raise InputError(
            f"the distilled images are {dataset.images.shape[1:]}, but images of "
            f"{data.info.name} are {expected}: set dataset.image_size, or read the "
            "distilled dataset that belongs to it"
        )
