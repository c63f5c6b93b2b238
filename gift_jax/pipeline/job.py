"""The whole job of one command: all stages, all students, one table."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import jax
from ml_collections.config_dict import ConfigDict

from gift_jax import registry, specs
from gift_jax.pipeline import products, results, tuning
from gift_jax.pipeline.labelling import LabelledDataset, check_storage, make_soft_labels
from gift_jax.pipeline.stages import Job, make_distilled, make_teacher
from gift_jax.pipeline.students import run_students
from gift_jax.runtime import devices, progress
from gift_jax.runtime.errors import InputError
from gift_jax.specs import DatasetSpec, JobSpec, StudentSpec


@dataclasses.dataclass(frozen=True)
class Shard:
    """A part of a grid, for one of several processes in one work directory.

    Attributes:
      index: Which part, from zero.
      count: How many parts there are.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Reads "i/n", as 0/4.

        Raises:
          InputError: it is not of this form, or i is not below n.
        """
        index, _, count = text.partition("/")
        if index.isdecimal() and count.isdecimal() and int(index) < int(count):
            return cls(int(index), int(count))
        raise InputError(f"shard is {text!r}, expected i/n with i from 0 to n - 1")


class _Setup(NamedTuple):
    """Students of a grid that differ in nothing but the seed.

    Attributes:
      job: One teacher and one distilled dataset.
      students: One a seed.
    """

    job: Job
    students: tuple[StudentSpec, ...]

    @property
    def upstream(self) -> tuple:
        """Stands for what it shares with others: all stages before training."""
        spec = self.job.spec
        sections = (spec.dataset, spec.teacher, spec.distilled, spec.augment)
        return (spec.seed, *sections, spec.relabel, spec.views)


def run_job(
    config: ConfigDict, directory: pathlib.Path, *, shard: Shard | None = None
) -> list[dict]:
    """Runs every stage that the work directory lacks, and trains every student.

    Args:
      config: See configs/common.py.
      directory: The work directory; created if absent.
      shard: The part of the students to train; all by default.

    Returns:
      The rows of the results file, those of runs found finished included.

    Raises:
      WorkdirError: the directory cannot be written or is of another config.
      InputError, FileNotFoundError: what is wrong with the config or the data.
    """
    devices.local()  # raises before anything is made
    job_specs = specs.expand(config)
    for spec in job_specs:
        spec.check_paths()
    products.open_workdir(directory)
    _keep_compiled_functions(directory / "compilation_cache")
    jobs = _jobs(job_specs, directory)
    for job in jobs:
        check_storage(job.spec.relabel, job.data.info.num_classes)
    shard = shard or Shard()
    grid = _setups(jobs)[shard.index :: shard.count]
    total = sum(_expected_trainings(setup) for setup in grid)
    rows: dict[str, dict] = {}
    labelled, upstream = None, None
    with progress.ProgressBar("students", total=total, unit="student") as bar:
        for setup in grid:
            if labelled is None or setup.upstream != upstream:
                labelled, upstream = _labelled(setup.job), setup.upstream
            for row in _trained(setup, labelled, bar):
                results.append_result(directory, row)
                rows[row["run_id"]] = row
    return list(rows.values())


def _keep_compiled_functions(directory: pathlib.Path) -> None:
    """Sets up JAX's compilation cache, where the user has not."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    jax.config.update("jax_compilation_cache_dir", str(directory))
    # The many small functions of a job together take seconds, too.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _jobs(job_specs: list[JobSpec], directory: pathlib.Path) -> list[Job]:
    """A job for every spec; those of one real dataset share it."""
    opened: dict[DatasetSpec, Job] = {}
    for spec in job_specs:
        if spec.dataset not in opened:
            opened[spec.dataset] = Job(
                spec=spec,
                workdir=directory,
                data=spec.dataset.open(),
                devices=devices.local(),
            )
    return [opened[spec.dataset].with_spec(spec) for spec in job_specs]


def _setups(jobs: list[Job]) -> list[_Setup]:
    """All setups of a grid, each once; what cannot be is found before any work."""
    found: dict[str, _Setup] = {}
    for job in jobs:
        if job.spec.teacher.network is not None and job.spec.relabel.needs_teacher:
            network = job.spec.teacher.build(job.data.info)
            check = getattr(job.spec.distilled.distiller, "check_network", None)
            if check is not None:
                check(network, job.data.info)
        for name in filter(registry.is_outside, job.spec.train.evaluators):
            job.evaluator(name, job.data.info.normalization)
        for students in job.spec.setups:
            students[0].network.build(job.data.info)
            setup = _Setup(job, students)
            key = repr((setup.upstream, job.spec.train, job.spec.tuning, students))
            found.setdefault(key, setup)
    return list(found.values())


def _labelled(job: Job) -> LabelledDataset:
    """Makes, or finds, all that comes before training."""
    # What is wrong with published images is found before a teacher is trained.
    published = make_distilled(job, None) if job.spec.distilled.path else None
    teacher = make_teacher(job) if job.spec.relabel.needs_teacher else None
    distilled = published or make_distilled(job, teacher.teacher if teacher else None)
    return make_soft_labels(job, distilled, teacher)


def _expected_trainings(setup: _Setup) -> int:
    tuning_spec = setup.job.spec.tuning
    if not tuning_spec.enabled:
        return len(setup.students)
    tried = len(tuning_spec.factors) * len(tuning_spec.seeds)
    return 2 * len(setup.students) + tried


def _trained(
    setup: _Setup, labelled: LabelledDataset, bar: progress.ProgressBar
) -> Iterator[dict]:
    """Rows of the students with the default learning rate, and with the tuned one."""
    job, students = setup.job, setup.students
    for row in run_students(job, labelled, students):
        bar.update(1)
        yield row
    if not job.spec.tuning.enabled:
        return
    tuned = tuning.tune(job, labelled, students[0], on_trained=lambda: bar.update(1))
    results.append_tuning(job.workdir, tuned)
    rate = tuned["learning_rate"]
    if rate is None:  # every rate diverged
        return
    for row in run_students(
        job, labelled, [s.with_learning_rate(rate) for s in students]
    ):
        bar.update(1)
        yield row
