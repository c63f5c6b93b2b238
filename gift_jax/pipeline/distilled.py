"""The stage of the distilled dataset: made here, or read from published files."""

import contextlib
import dataclasses
import logging
import pathlib
import shutil
from typing import Any, NamedTuple

from gift_jax import distilled as distilled_lib
from gift_jax import registry
from gift_jax.data import real
from gift_jax.distill.matching.experts import Experts, Trajectory, fingerprint_of
from gift_jax.distill.recovery.base import recoverable
from gift_jax.distill.recovery.real_statistics import RealLayer
from gift_jax.distilled import DistilledDataset, read_distilled
from gift_jax.distilled.readers import files_beside, guess_source
from gift_jax.pipeline.context import Job
from gift_jax.pipeline.products import Product, WorkdirError, file_fingerprint
from gift_jax.pipeline.statistics import make_statistics
from gift_jax.pipeline.teacher import JobTeacher, make_teacher
from gift_jax.runtime import hosts, preemption, progress
from gift_jax.runtime.checksums import fingerprint
from gift_jax.runtime.errors import InputError
from gift_jax.specs import DistilledSpec
from gift_jax.teachers import Teacher, ensemble

_log = logging.getLogger(__name__)

# Default of `distilled.name` in configs/common.py, for published images too.
_DEFAULT_NAME = "rded"
_ANOTHER_NAME = (
    "A set by another name is kept beside it: --config.distilled.name=OTHER."
)
# Subdirectory of images in the making.
_UNFINISHED = "unfinished"


class JobDistilled(NamedTuple):
    """A distilled dataset, and the name of its product."""

    name: str
    dataset: DistilledDataset


def make_distilled_and_teacher(job: Job) -> tuple[JobDistilled, JobTeacher | None]:
    """Distilled dataset and teacher of a job; no teacher where none is needed.

    Raises: as `make_distilled` and `make_teacher`.
    """
    # Errors in published images are found before a teacher is trained.
    published = make_distilled(job, None) if job.spec.distilled.path else None
    teacher = make_teacher(job) if job.spec.needs_teacher_of_all_classes else None
    distilled = published or make_distilled(job, teacher.teacher if teacher else None)
    return distilled, teacher


def make_distilled(job: Job, teacher: Teacher | None) -> JobDistilled:
    """Makes or reads a distilled dataset, or loads it from the work directory.

    Args:
      job: Job whose distilled dataset it is.
      teacher: Teacher for distillers that need one.

    Raises:
      InputError: the distilled dataset does not belong to the real dataset, or comes
        with a learning rate that the protocol wants and the config lacks.
      WorkdirError: its files are damaged.
    """
    spec = job.spec.distilled
    name = f"{spec.name}_ipc{spec.ipc}"
    recipe: dict[str, Any] = {"dataset": job.dataset_recipe(), "ipc": spec.ipc}
    if spec.distiller is None:
        recipe["source"] = [spec.source, registry.code_fingerprint(spec.source)]
        path = pathlib.Path(spec.path)
        recipe["path"] = file_fingerprint(path) if path.exists() else spec.path
        if beside := files_beside(path):
            recipe["beside"] = {file.name: file_fingerprint(file) for file in beside}
    else:
        recipe["seed"] = job.spec.seed
        recipe["distiller"] = spec.recipe
    if spec.needs("teacher"):
        assert teacher is not None
        recipe["teacher"] = teacher.fingerprint
        name += f"_{teacher.name}"
    name = job.spec.tagged(name, "distilled")
    advice = _ANOTHER_NAME if spec.path else ""
    product = Product(job.workdir / "distilled" / name, recipe, advice)
    resumable = getattr(spec.distiller, "resumable", False)
    options: dict[str, Any] = {"teacher": teacher, "seed": job.spec.seed}
    if spec.needs("teacher_statistics") and not product.is_finished():
        options["real"] = _real_statistics(job, teacher)
    if spec.needs("experts") and not product.is_finished():
        options["experts"] = _experts(job)

    def make(directory: pathlib.Path) -> dict[str, Any]:
        made = _new_distilled(job, options, directory / _UNFINISHED)
        _check_belongs(made, job.data, spec.ipc)
        if hosts.is_primary():
            distilled_lib.save_distilled(made, directory)
        return {
            "images": len(made),
            "ipc": made.ipc,
            "fingerprint": made.fingerprint,
        }

    on_all_hosts = getattr(spec.distiller, "on_all_hosts", False)
    product.make_if_absent(make, resumable=resumable, on_all_hosts=on_all_hosts)
    if hosts.is_primary():
        shutil.rmtree(product.directory / _UNFINISHED, ignore_errors=True)
    try:
        dataset = distilled_lib.load_distilled(product.directory)
    except (FileNotFoundError, InputError) as error:
        raise WorkdirError(
            f"{product.directory} is damaged: {error}; delete it to have it made anew"
        ) from error
    product.checked_record(dataset.fingerprint)
    _check_learning_rate(job, dataset)
    return JobDistilled(product.directory.name, dataset)


def _real_statistics(job: Job, teacher: Teacher | None) -> list[list[RealLayer]]:
    """Statistics of the real images in every network of the teacher."""
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
    """Trajectories of the distiller's experts, made or found.

    Distillers with the same experts share them: their name is the fingerprint of their
    recipe.
    """
    distiller: Any = job.spec.distilled.distiller
    experts: Experts = distiller.experts_for(job.data, job.spec.seed)
    recipe = {"dataset": job.dataset_recipe(), "experts": experts.recipe}
    product = Product(job.workdir / "experts" / fingerprint(recipe), recipe)

    def make(directory: pathlib.Path) -> dict[str, str]:
        made = experts.train(job.data, directory, devices=job.devices)
        return {"fingerprint": fingerprint_of(made)}

    product.make_if_absent(make, resumable=True, on_all_hosts=True)
    found = experts.open(job.data.info, product.directory)
    product.checked_record(fingerprint_of(found))
    return found


def _new_distilled(
    job: Job, options: dict[str, Any], unfinished: pathlib.Path
) -> DistilledDataset:
    spec = job.spec.distilled
    if spec.distiller is None:
        published = read_distilled(
            spec.path,
            spec.source or guess_source(pathlib.Path(spec.path)),
            dataset=job.data.info,
            ipc=spec.ipc,
            train_images=(job.data.with_held_out or job.data.train).all_images,
            class_names=job.data.class_names,
            max_bytes=spec.max_bytes,
        )
        _warn_of_name(spec, published)
        return published
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

        options = {**options, "on_progress": on_progress}
        made = spec.distiller.make(job.data, **options)
    if not isinstance(made, DistilledDataset):
        raise InputError(
            f"the distiller {spec.name} made a {type(made).__name__}, expected a "
            "DistilledDataset"
        )
    return made


def _warn_of_name(spec: DistilledSpec, dataset: DistilledDataset) -> None:
    method = dataset.metadata.method
    if spec.name == _DEFAULT_NAME and method not in (_DEFAULT_NAME, "unknown"):
        _log.warning(
            "the images of %s (method %s) are recorded as %r, the default of "
            "distilled.name: if they are of another method, name it there",
            *(spec.path, method, spec.name),
        )


def _check_learning_rate(job: Job, dataset: DistilledDataset) -> None:
    learnt = dataset.metadata.learning_rate
    if job.spec.wants_learnt_rate and learnt is not None:
        raise InputError(
            f"protocol is {job.spec.protocol!r}, whose learning rate is learnt with "
            f"the images, {learnt:g} with these, but none is given: set "
            f"optimizer.learning_rate={learnt:g}, or another"
        )


def _check_belongs(dataset: DistilledDataset, data: real.RealDataset, ipc: int) -> None:
    if dataset.ipc != ipc:  # such as of a user's distiller
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
