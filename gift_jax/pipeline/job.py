"""The whole job of one command: all stages, all students, one table."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import jax

from gift_jax.pipeline import products, results, tuning
from gift_jax.pipeline.labelling import (
    LabelledDataset,
    check_storage,
    make_soft_labels,
    needs_teacher,
)
from gift_jax.pipeline.run_students import run_students
from gift_jax.pipeline.stages import Job, make_distilled, make_teacher
from gift_jax.runtime import progress
from gift_jax.specs import settings
from gift_jax.specs.students import StudentSpec, setups


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
          ValueError: it is not of this form, or i is not below n.
        """
        index, _, count = text.partition("/")
        if index.isdecimal() and count.isdecimal() and int(index) < int(count):
            return cls(int(index), int(count))
        raise ValueError(f"shard is {text!r}, expected i/n with i from 0 to n - 1")


class _Setup(NamedTuple):
    """Students of a grid that differ in nothing but the seed.

    Attributes:
      job: Its config has one teacher and one distilled dataset.
      students: One a seed.
      stages: Stands for what they share with others: all stages before training.
    """

    job: Job
    students: list[StudentSpec]
    stages: str


def run_job(
    config: settings.Config, directory: pathlib.Path, *, shard: Shard | None = None
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
      ValueError, FileNotFoundError: what is wrong with the config or the data.
    """
    configs = list(settings.expand(config))
    for single in configs:
        settings.check(single)
    products.make_directory(directory)
    _keep_compiled_functions(directory / "compilation_cache")
    jobs = _jobs(configs, directory)
    for job in jobs:
        check_storage(job.config, job.data.info.num_classes)
    shard = shard or Shard()
    grid = _setups(jobs)[shard.index :: shard.count]
    total = sum(_expected_trainings(setup) for setup in grid)
    rows: dict[str, dict] = {}
    labelled, stages = None, ""
    with progress.ProgressBar("students", total=total, unit="student") as bar:
        for setup in grid:
            if labelled is None or setup.stages != stages:
                labelled, stages = _labelled(setup.job), setup.stages
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


def _jobs(configs: list[settings.Config], directory: pathlib.Path) -> list[Job]:
    """A job for every config; those of one real dataset share it."""
    jobs: dict[str, Job] = {}
    for config in configs:
        dataset = _real(config)
        if dataset not in jobs:
            jobs[dataset] = Job(
                config=config,
                workdir=directory,
                data=settings.real_dataset(config),
                devices=tuple(jax.local_devices()),
            )
    return [jobs[_real(c)].with_config(c) for c in configs]


def _real(config: settings.Config) -> str:
    """Stands for a real dataset and its held-out images."""
    return json.dumps([config.dataset.to_json(), settings.validation_images(config)])


def _setups(jobs: list[Job]) -> list[_Setup]:
    """All setups of a grid, each once."""
    found: dict[str, _Setup] = {}
    for job in jobs:
        config, stages = job.config, _stages(job.config)
        for students in setups(config):
            # What cannot be is found before any work.
            settings.network(config.student, students[0].network, job.data.info)
            sections = [config.student.to_json(), config.train.to_json()]
            key = json.dumps([stages, *sections, repr(students)])
            found.setdefault(key, _Setup(job, students, stages))
    return list(found.values())


def _stages(config: settings.Config) -> str:
    """What the stages before training read of a config."""
    sections = ("dataset", "teacher", "distilled", "augment", "relabel")
    read = {name: config[name].to_dict() for name in sections}
    held_out = settings.validation_images(config)
    return json.dumps(
        [config.seed, settings.views(config), held_out, read], sort_keys=True
    )


def _labelled(job: Job) -> LabelledDataset:
    """Makes, or finds, all that comes before training."""
    # What is wrong with published images is found before a teacher is trained.
    published = make_distilled(job, None) if job.config.distilled.path else None
    teacher = make_teacher(job) if needs_teacher(job.config) else None
    return make_soft_labels(job, published or make_distilled(job, teacher), teacher)


def _expected_trainings(setup: _Setup) -> int:
    section = setup.job.config.tuning
    if not section.enabled:
        return len(setup.students)
    return 2 * len(setup.students) + len(section.factors) * len(section.seeds)


def _trained(
    setup: _Setup, labelled: LabelledDataset, bar: progress.ProgressBar
) -> Iterator[dict]:
    """Rows of the students with the default learning rate, and with the tuned one."""
    job, students = setup.job, setup.students
    for row in run_students(job, labelled, students):
        bar.update(1)
        yield row
    if not job.config.tuning.enabled:
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
