"""The first stages: teacher and distilled dataset.

Every stage makes its product in the work directory, or finds it there.
"""

import contextlib
import dataclasses
import functools
import logging
import pathlib
import shutil
from typing import Any

import flax.linen as nn
import jax

from gift_jax import distill
from gift_jax.data import preprocess, real
from gift_jax.distilled import dataset as distilled_lib
from gift_jax.distilled import read_distilled
from gift_jax.distilled.readers import guess_source
from gift_jax.evaluators.accuracy import Evaluator
from gift_jax.pipeline.products import Product, file_fingerprint
from gift_jax.runtime import hosts, preemption, progress
from gift_jax.specs import settings
from gift_jax.teachers import teacher as teacher_lib
from gift_jax.teachers.check import check_on_real
from gift_jax.torch_io import torch_import
from gift_jax.train import checkpoint

_log = logging.getLogger(__name__)

# The teachers of RDED and GIFT on ImageNet-1k.
_TORCHVISION_WEIGHTS = "IMAGENET1K_V1"
# Of a teacher in training.
_CHECKPOINTS = "checkpoints"


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """What all stages and runs of one command share.

    Attributes:
      config: As read from the config file and the command line.
      workdir: Where products lie.
      data: The real dataset.
      devices: Local devices.
    """

    config: settings.Config
    workdir: pathlib.Path
    data: real.RealDataset
    devices: tuple[jax.Device, ...]
    _evaluators: dict[Any, Evaluator] = dataclasses.field(
        default_factory=dict, repr=False
    )

    def with_config(self, config: settings.Config) -> "Job":
        """The job of another config on the same data, which shares its evaluators."""
        return dataclasses.replace(self, config=config)

    def evaluator(
        self, transform: preprocess.Preprocess, split: str = "test"
    ) -> Evaluator:
        """Measures accuracies on a split under some preprocessing.

        Args:
          transform: From pixels to network inputs.
          split: "test" or "validation".
        """
        images = self.data.test if split == "test" else self.data.validation
        if images is None:
            raise ValueError(
                "no images are held out to validate on: set tuning.enabled"
            )
        key = (transform, split, self.config.train.eval_batch_size)
        if key not in self._evaluators:
            self._evaluators[key] = Evaluator(
                images,
                transform,
                devices=hosts.devices(self.devices),
                batch_size=self.config.train.eval_batch_size,
                workers=self.config.dataset.workers,
            )
        return self._evaluators[key]


def make_teacher(job: Job) -> teacher_lib.Teacher:
    """Trains, imports or restores the teacher; its test accuracy is measured once.

    Raises:
      teacher.TeacherError: an imported teacher does not recognise real test images.
    """
    section, info = job.config.teacher, job.data.info
    model = settings.network(section, section.name, info)
    transform = settings.normalization(section) or info.normalization
    training = None if section.checkpoint else settings.teacher_training(job.config)
    recipe = {
        "dataset": settings.dataset_recipe(info),
        "model": settings.network_recipe(section, section.name),
        "normalization": dataclasses.asdict(transform),
        "training": dataclasses.asdict(training) if training else None,
        "checkpoint": _checkpoint_recipe(section.checkpoint),
    }
    name = settings.network_label(section, section.name)
    product = Product(job.workdir / "teacher" / name, recipe)
    complete = functools.partial(
        teacher_lib.Teacher,
        name=name,
        model=model,
        transform=transform,
        fingerprint=product.fingerprint,
    )
    with product.making_if_absent(resumable=training is not None) as directory:
        if directory is not None:
            if training:
                variables = _train_teacher(job, model, training, transform, directory)
            else:
                variables = _import_teacher(job)
            accuracy = job.evaluator(transform)(model, variables)
            teacher = complete(variables=variables, top1=accuracy.top1)
            if not training:
                check_on_real(teacher, job.data, min_accuracy=section.min_accuracy)
            teacher_lib.save_teacher(directory, variables)
            product.finish(**dataclasses.asdict(accuracy))
            if hosts.is_primary():
                shutil.rmtree(directory / _CHECKPOINTS, ignore_errors=True)
            _log.info("teacher %s: top-1 %.2f%% on the test split", name, teacher.top1)
    shape = (info.image_size, info.image_size, info.channels)
    variables = teacher_lib.load_teacher(product.directory, model, shape)
    return complete(variables=variables, top1=product.facts()["top1"])


def _train_teacher(
    job: Job,
    model: nn.Module,
    training: teacher_lib.TrainingSpec,
    transform: preprocess.Normalization,
    directory: pathlib.Path,
) -> dict[str, Any]:
    try:
        return teacher_lib.train_teacher(
            model,
            job.data,
            training,
            transform,
            checkpoints_directory=directory / _CHECKPOINTS,
            devices=hosts.devices(job.devices),
        )
    except teacher_lib.TeacherError:  # which going on would not change
        if hosts.is_primary():
            shutil.rmtree(directory)
        raise


def _checkpoint_recipe(path: str) -> str | None:
    if path == settings.TORCHVISION:
        return f"torchvision {_TORCHVISION_WEIGHTS}"
    return file_fingerprint(pathlib.Path(path)) if path else None


def _import_teacher(job: Job) -> dict[str, Any]:
    section, info = job.config.teacher, job.data.info
    if section.checkpoint != settings.TORCHVISION:
        variables = torch_import.import_torch(
            section.checkpoint,
            model=section.name,
            num_classes=info.num_classes,
            image_size=info.image_size,
            **settings.network_options(section, section.name),
        )
        # The file tells its channels, which may not be those of the images.
        shape = (info.image_size, info.image_size, info.channels)
        expected = teacher_lib.variable_shapes(
            settings.network(section, section.name, info), shape
        )
        checkpoint.check_shapes(variables, like=expected, origin=section.checkpoint)
        return variables
    if info.num_classes != 1000:
        raise ValueError(
            "teacher.checkpoint is 'torchvision', whose weights are for the 1000 "
            f"classes of ImageNet-1k, but {info.name} has {info.num_classes}: give "
            "the path of a checkpoint, or leave it empty to train a teacher"
        )
    return torch_import.import_torchvision(
        section.name, image_size=info.image_size, weights=_TORCHVISION_WEIGHTS
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Distilled:
    """A distilled dataset as a product.

    Attributes:
      title: Name of its directory.
      dataset: The distilled dataset.
      fingerprint: Of the product.
    """

    title: str
    dataset: distilled_lib.DistilledDataset
    fingerprint: str


def make_distilled(job: Job, teacher: teacher_lib.Teacher | None) -> Distilled:
    """Makes or reads a distilled dataset, or loads it from the work directory.

    Args:
      job: Its config names one method, or what a published dataset is called.
      teacher: Scores crops for RDED.

    Raises:
      ValueError: the distilled dataset does not belong to the real dataset.
    """
    section, info = job.config.distilled, job.data.info
    name = section.name
    title = f"{name}_ipc{section.ipc}"
    recipe: dict[str, Any] = {
        "dataset": settings.dataset_recipe(info),
        "ipc": section.ipc,
    }
    if section.path:
        recipe["source"] = section.source
        path = pathlib.Path(section.path)
        recipe["path"] = file_fingerprint(path) if path.exists() else section.path
    else:
        recipe["seed"] = job.config.seed
    if name == "rded" and not section.path:
        recipe["factor"] = section.factor
        recipe["images_per_class"] = section.images_per_class
        recipe["crops_per_image"] = section.crops_per_image
        recipe["teacher"] = teacher.fingerprint if teacher else None
        title += f"_{teacher.name}" if teacher else ""
    product = Product(job.workdir / "distilled" / title, recipe)
    with product.making_if_absent() as directory:
        if directory is not None:
            if hosts.is_primary():
                with contextlib.suppress(preemption.PreemptedError):
                    dataset = _new_distilled(job, teacher)
                    _check_belongs(dataset, job.data)
                    distilled_lib.save_distilled(dataset, directory)
                    product.finish(images=len(dataset), ipc=dataset.ipc)
            if not product.is_finished():
                raise preemption.PreemptedError
    dataset = distilled_lib.load_distilled(product.directory)
    return Distilled(title, dataset, product.fingerprint)


def _new_distilled(
    job: Job, teacher: teacher_lib.Teacher | None
) -> distilled_lib.DistilledDataset:
    section = job.config.distilled
    if section.path:
        source = section.source or guess_source(pathlib.Path(section.path))
        return read_distilled(
            section.path,
            source,
            dataset=job.data.info,
            ipc=section.ipc if source == "folders" else None,
            train_images=job.data.train.all_images,
        )
    if section.name == "random":
        return distill.make_random(job.data, ipc=section.ipc, seed=job.config.seed)
    if teacher is None:
        raise ValueError(
            "distilled.name is 'rded', which needs a teacher to score crops, but "
            "relabel.source is 'dataset'"
        )
    classes = job.data.info.num_classes
    with progress.ProgressBar("rded", total=classes, unit="class") as bar:

        def on_class_done(label: int) -> None:
            bar.update(1)
            if preemption.requested() and label < classes - 1:
                raise preemption.PreemptedError

        return distill.make_rded(
            job.data,
            teacher_lib.make_score(teacher),
            ipc=section.ipc,
            factor=section.factor,
            images_per_class=section.images_per_class,
            crops_per_image=section.crops_per_image,
            seed=job.config.seed,
            on_class_done=on_class_done,
        )


def _check_belongs(
    dataset: distilled_lib.DistilledDataset, data: real.RealDataset
) -> None:
    info = data.info
    if dataset.metadata.num_classes != info.num_classes:
        raise ValueError(
            f"the distilled dataset has {dataset.metadata.num_classes} classes, but "
            f"{info.name} has {info.num_classes}"
        )
    expected = (info.image_size, info.image_size, info.channels)
    if dataset.images.shape[1:] != expected:
        raise ValueError(
            f"the distilled images are {dataset.images.shape[1:]}, but images of "
            f"{info.name} are {expected}: set dataset.image_size, or read the "
            "distilled dataset that belongs to it"
        )
