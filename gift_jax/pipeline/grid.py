"""All students that a config asks for, and what they share before they are trained."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from ml_collections.config_dict import ConfigDict

from gift_jax import registry, specs
from gift_jax.pipeline import continual, products, results, tuning
from gift_jax.pipeline.context import Job
from gift_jax.pipeline.distilled import (
    JobDistilled,
    make_distilled,
    make_distilled_and_teacher,
)
from gift_jax.pipeline.labelling import LabelledDataset, check_storage, make_soft_labels
from gift_jax.pipeline.statistics import channel_statistics
from gift_jax.pipeline.students import UnfinishedError, run_students
from gift_jax.pipeline.teacher import JobTeacher, check_importable
from gift_jax.runtime import devices, hosts, provenance
from gift_jax.runtime.errors import InputError
from gift_jax.specs import DatasetSpec, JobSpec, StudentSpec
from gift_jax.train import batches

OnTrained = Callable[[], None]
# Directory of the compiled functions of the latest grid.
_cache_directory: str | None = None
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Shard:
    """A part of a grid, for one of several processes in one work directory.

    Attributes:
      index: Index of the part, from zero.
      count: Number of parts.
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


class Setup(NamedTuple):
    """Students of a grid that differ in nothing but the seed.

    Attributes:
      job: Job with one teacher and one distilled dataset.
      students: One per seed.
    """

    job: Job
    students: tuple[StudentSpec, ...]

    @property
    def upstream(self) -> tuple:
        """Key of all stages before training, which setups with equal keys share."""
        return self.job.spec.upstream

    @property
    def trainings(self) -> int:
        """Least number of trainings, including those that choose a learning rate."""
        tuning_spec = self.job.spec.tuning
        if not tuning_spec.enabled:
            return len(self.students)
        tried = len(tuning_spec.factors) * len(tuning_spec.seeds)
        return 2 * len(self.students) + tried

    def units(self) -> list["Setup"]:
        """Its independent parts: single students, but all of them if they are tuned."""
        if self.job.spec.tuning.enabled:
            return [self]
        return [self._replace(students=(student,)) for student in self.students]


class Grid:
    """The setups of a config, checked before anything is made.

    Args:
      config: See configs/common.py.
      directory: The work directory; created if absent.
      shard: The part of the setups to train.

    Attributes:
      setups: Setups of this shard.
      units: The same in the smallest parts that can be trained independently.
      processes: Number of processes that train them, from the config.

    Raises:
      WorkdirError: the directory cannot be written or is of another config.
      InputError, FileNotFoundError: something is wrong with the config or the data.
    """

    def __init__(
        self, config: ConfigDict, directory: pathlib.Path, shard: Shard
    ) -> None:
        devices.local()  # raises before anything is made
        provenance.code_version()  # cached: the checkout may change later
        registry.reload_edited()
        job_specs = specs.expand(config)
        for spec in job_specs:
            spec.check_paths()
            check_importable(spec, directory)
        products.open_workdir(directory)
        _keep_compiled_functions(directory / "compilation_cache")
        jobs = _jobs(job_specs, directory)
        hosts.require_equal(
            lambda: {
                f"{job.data.info.name}, job {number}": job.data.fingerprint
                for number, job in enumerate(jobs)
            },
            name="real images",
        )
        for job in jobs:
            num_classes = job.data.info.num_classes
            check_storage(job.spec.relabel, num_classes)
            num_images = num_classes * job.spec.distilled.ipc
            batches.devices_used(
                job.spec.train.batch_size_for(num_images),
                local_devices=len(job.devices),
                num_hosts=hosts.count(),
            )
        self.setups = _setups(jobs)[shard.index :: shard.count]
        self.units = [unit for setup in self.setups for unit in setup.units()]
        self.processes = job_specs[0].train.processes
        self._directory = directory
        self._made: _Latest[tuple[JobDistilled, JobTeacher | None]] = _Latest()
        self._labelled: _Latest[tuple[Job, LabelledDataset]] = _Latest()

    def read_published(self) -> None:
        """Reads all published images, if variants have several sets of them.

        Raises: as `make_distilled`, for any of them, before there is work to lose.
        """
        jobs = [setup.job for setup in self.setups if setup.job.spec.distilled.path]
        published = {
            (spec.dataset, spec.distilled, spec.wants_learnt_rate): job
            for job in jobs
            for spec in [job.spec]
        }
        for job in published.values() if len(published) > 1 else ():
            make_distilled(job, None)

    def train(self, setup: Setup, *, on_trained: OnTrained) -> Iterator[dict[str, Any]]:
        """Trains the untrained students of a setup, and makes what they need.

        Args:
          setup: One of `setups` or of `units`.
          on_trained: Called after every training.

        Yields:
          The rows of its students, already in the results file, with the default
          learning rate and then, if there is tuning, with the tuned one.
        """
        for row in self._rows(setup, train=True, on_trained=on_trained):
            results.append_result(self._directory, row)
            yield row

    def unfinished(self) -> list[int]:
        """Indices of the units with students left to train; makes the stages before.

        Of units that are the same runs, as where one variant states what is another's
        default, it is the first.
        """
        found: dict[pathlib.Path, int] = {}
        for number, unit in enumerate(self.units):
            try:
                list(self._rows(unit, train=False, on_trained=lambda: None))
            except UnfinishedError as error:
                found.setdefault(error.directory, number)
        return list(found.values())

    def _rows(
        self, setup: Setup, *, train: bool, on_trained: OnTrained
    ) -> Iterator[dict[str, Any]]:
        students = setup.students
        job, labelled = self._labelled_for(setup)
        run = functools.partial(run_students, job, labelled, train=train)
        for row in run(students):
            on_trained()
            yield row
        if not job.spec.tuning.enabled:
            return
        tuned = tuning.tune(run, students[0], job.spec.tuning, on_trained=on_trained)
        if train:
            results.append_tuning(job.workdir, tuned)
        rate = tuned["learning_rate"]
        if rate is None:  # every rate diverged
            return
        for row in run([s.with_learning_rate(rate) for s in students]):
            on_trained()
            yield row

    def _labelled_for(self, setup: Setup) -> tuple[Job, LabelledDataset]:
        """Makes what comes before training; that of the latest setup is kept.

        Returns:
          The job on the real images that students are measured on, and what they are
          trained on.
        """
        # Variants can have the same labels under other names, as protocols do.
        names = setup.job.spec.tagged("", "teacher", "distilled", "soft_labels")
        job, labelled = self._labelled.get(
            (setup.upstream, names),
            lambda: _labelled(setup.job, *self._distilled_and_teacher(setup.job)),
        )
        return job.with_spec(setup.job.spec.at_step()), labelled

    def _distilled_and_teacher(
        self, job: Job
    ) -> tuple[JobDistilled, JobTeacher | None]:
        """Makes both, and keeps the latest, which views, labels and steps share."""
        spec = job.spec
        names = spec.tagged("", "teacher", "distilled")
        key = (spec.distilled_from, spec.needs_teacher_of_all_classes, names)
        return self._made.get(key, lambda: make_distilled_and_teacher(job))


class _Latest(Generic[_T]):
    """Keeps what was made last, and frees it before another is made."""

    def __init__(self) -> None:
        self._made: tuple[Any, _T] | None = None

    def get(self, key: Any, make: Callable[[], _T]) -> _T:
        """What was made for this key, or is made now."""
        if self._made is None or self._made[0] != key:
            self._made = None
            self._made = (key, make())
        return self._made[1]


def _keep_compiled_functions(directory: pathlib.Path) -> None:
    """Sets up JAX's compilation cache, where the user has not."""
    global _cache_directory
    chosen = jax.config.values["jax_compilation_cache_dir"]
    if chosen not in (None, _cache_directory):
        return
    if _cache_directory not in (None, str(directory)):
        compilation_cache.reset_cache()  # JAX opens it once
    _cache_directory = str(directory)
    jax.config.update("jax_compilation_cache_dir", _cache_directory)
    # The many small functions of a job together take seconds, too.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _jobs(job_specs: list[JobSpec], directory: pathlib.Path) -> list[Job]:
    """A job for every spec; those of one real dataset share it."""
    measure = functools.partial(channel_statistics, directory)
    opened: dict[DatasetSpec, Job] = {}
    for spec in job_specs:
        if spec.dataset not in opened:
            opened[spec.dataset] = Job(
                spec=spec,
                workdir=directory,
                data=spec.dataset.open(measure),
                devices=devices.local(),
            )
    return [opened[spec.dataset].with_spec(spec) for spec in job_specs]


def _setups(jobs: list[Job]) -> list[Setup]:
    """All setups of a grid, each once; impossible ones are found before any work."""
    found: dict[str, Setup] = {}
    for job in jobs:
        _check_distiller(job)
        num_classes, continual_spec = job.data.info.num_classes, job.spec.continual
        if continual_spec is not None:
            num_classes = len(continual_spec.outputs(num_classes))
        for name in filter(registry.is_own, job.spec.train.evaluators):
            job.evaluator(name, job.data.info.normalization)
        for students in job.spec.setups:
            students[0].network.build(job.data.info)
            _check_loss(students[0], num_classes)
            setup = Setup(job, students)
            found.setdefault(job.spec.setup_key(students), setup)
    return list(found.values())


def _check_distiller(job: Job) -> None:
    """Raises InputError for a teacher or dataset that the distiller cannot use."""
    distiller: Any = job.spec.distilled.distiller
    if hasattr(distiller, "check"):
        distiller.check(job.data)
    if job.spec.teacher.network is not None and job.spec.needs_teacher:
        network = job.spec.teacher.build(job.data.info)
        if hasattr(distiller, "check_network"):
            distiller.check_network(network, job.data.info)


def _check_loss(student: StudentSpec, num_classes: int) -> None:
    """Raises InputError where a loss cannot be computed for so few classes."""
    logits = jax.ShapeDtypeStruct((2, num_classes), np.float32)
    labels = jax.ShapeDtypeStruct((2,), np.int32)
    try:
        jax.eval_shape(student.loss.build(), logits, logits, labels)
    except ValueError as error:
        raise InputError(
            f"loss.name is {student.loss.label!r}, for {num_classes} classes: {error}"
        ) from error


def _labelled(
    job: Job, distilled: JobDistilled, teacher: JobTeacher | None
) -> tuple[Job, LabelledDataset]:
    """Makes, or finds, the labels that students are trained on."""
    if job.spec.continual is None:
        return job, make_soft_labels(job, distilled, teacher)
    of_step = continual.step_job(job)
    return of_step, continual.label_step(job, of_step, distilled, teacher)
