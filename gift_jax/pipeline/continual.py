"""A step of a class-incremental training: the classes so far, and their labels.

Classes are numbered in the order of their arrival, so that those of a step follow those
of the step before.
"""

import dataclasses
from typing import Any

from gift_jax.pipeline.context import Job
from gift_jax.pipeline.distilled import JobDistilled
from gift_jax.pipeline.labelling import LabelledDataset, make_soft_labels
from gift_jax.pipeline.teacher import JobTeacher, make_teacher
from gift_jax.runtime.checksums import fingerprint
from gift_jax.teachers import TeacherOfClasses


def step_job(job: Job) -> Job:
    """The job of a step on the real images of the classes so far.

    Raises:
      InputError: the classes cannot be divided into steps.
    """
    assert job.spec.continual is not None
    seen = job.spec.continual.seen(job.data.info.num_classes)
    return Job(job.spec.at_step(), job.workdir, job.data.of_classes(seen), job.devices)


def label_step(
    job: Job, of_step: Job, distilled: JobDistilled, teacher: JobTeacher | None
) -> LabelledDataset:
    """Labels the distilled images of the classes so far.

    Args:
      job: The job on all classes.
      of_step: The job of the step, from `step_job`.
      distilled: Images of all classes.
      teacher: Teacher of all classes; None where none is needed.
    """
    continual = job.spec.continual
    assert continual is not None
    num_classes = job.data.info.num_classes
    of_all_classes = _of_all_classes(job, distilled, teacher)
    seen, outputs = continual.seen(num_classes), continual.outputs(num_classes)
    if job.spec.is_retrained:
        teacher = make_teacher(of_step)
    elif teacher is not None:
        teacher = JobTeacher(
            TeacherOfClasses(teacher.teacher, outputs),
            TeacherOfClasses(teacher.evaluated, outputs),
            teacher.top1,
        )
    some = JobDistilled(distilled.name, distilled.dataset.of_classes(seen, outputs))
    labelled = make_soft_labels(of_step, some, teacher)
    columns = {
        **labelled.columns,
        **continual.columns,
        "continual_trained_on": fingerprint(of_all_classes),
    }
    return dataclasses.replace(labelled, columns=columns)


def _of_all_classes(
    job: Job, distilled: JobDistilled, teacher: JobTeacher | None
) -> dict[str, Any]:
    """What all steps have in common, whatever their classes and their labels."""
    spec = job.spec
    of_teacher = None
    if spec.relabel.needs_teacher and spec.teacher.training:
        of_teacher = repr(spec.teacher)  # teachers trained anew have one recipe
    elif spec.relabel.needs_teacher and teacher is not None:
        of_teacher = teacher.teacher.fingerprint
    return {
        "dataset": job.data.fingerprint,
        "distilled": distilled.dataset.fingerprint,
        "teacher": of_teacher,
        "batch_size": spec.train.batch_size,
    }
