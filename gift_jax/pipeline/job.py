"""The whole job of one command: all stages, all students, one table."""

import pathlib
import time
from collections.abc import Sized
from typing import Any

from ml_collections.config_dict import ConfigDict

from gift_jax.pipeline import processes, results
from gift_jax.pipeline.grid import Grid, Setup, Shard
from gift_jax.runtime import devices, paths, progress
from gift_jax.runtime.cores import usable_cores
from gift_jax.specs import options

# Seconds of training that are worth the start of processes; one takes ten to start and
# to load compiled functions.
_WORTH_A_START = 60.0
# Least units per process: with fewer, processes would wait for the last ones.
_LEAST_UNITS = 2


def run_job(
    config: ConfigDict, directory: str | pathlib.Path, *, shard: Shard | None = None
) -> list[dict]:
    """Runs every stage that the work directory lacks, and trains every student.

    Args:
      config: See configs/common.py.
      directory: The work directory; created if absent.
      shard: The part of the students to train; all by default.

    Returns:
      The rows of the results file, including those of runs that were already finished.

    Raises:
      WorkdirError: the directory cannot be written or is of another config.
      InputError, FileNotFoundError: something is wrong with the config or the data.

    >>> from gift_jax.configs import digits
    >>> config = digits.get_config("distill=rded,loss=kl+gift,optimizer=sgd+adamw")
    >>> rows = run_job(config, "workdir")  # doctest: +SKIP
    >>> {row["loss"]: row["top1_last"] for row in rows}  # doctest: +SKIP
    """
    directory = paths.local(directory, "the work directory")
    grid = Grid(config, directory, shard or Shard())
    results.read_results(directory)  # warns once of lines that are skipped
    grid.read_published()
    _train_in_processes(grid, config, directory, shard or Shard())
    total = sum(setup.trainings for setup in grid.setups)
    rows: dict[str, dict] = {}
    with progress.ProgressBar("students", total=total, unit="student") as bar:
        for setup in grid.setups:
            for row in grid.train(setup, on_trained=lambda: bar.update(1)):
                rows[row["run_id"]] = row
    return list(rows.values())


def _train_in_processes(
    grid: Grid, config: ConfigDict, directory: pathlib.Path, shard: Shard
) -> None:
    """Trains units in several processes; does nothing where one process is enough."""
    # A grid that is split into shards has a process for each of them already.
    wanted = grid.processes or (1 if shard.count > 1 else usable_cores())
    least_units = 1 if grid.processes else _LEAST_UNITS

    def number_for(units: Sized) -> int:
        local = devices.local()
        return processes.count(wanted, units, local, least_units=least_units)

    if number_for(grid.units) == 1:
        return
    # Other processes cannot import what a notebook or a script defines.
    if any("__main__:" in value for value in options.flattened(config).values()):
        return
    units = grid.unfinished()
    if not grid.processes and units and _seconds_left(grid, units) < _WORTH_A_START:
        return
    units = units if grid.processes else units[1:]
    number = number_for(units)
    if number == 1:
        return
    named = [processes.Unit(n, _programs(grid.units[n])) for n in units]
    shared = processes.with_company(named, number)
    total = sum(grid.units[unit.number].trainings for unit in shared)
    name = f"students, {number} at once"
    with progress.ProgressBar(name, total=total, unit="student") as bar:
        processes.train(
            (config, directory, shard),
            shared,
            number=number,
            on_trained=lambda: bar.update(1),
        )


def _programs(unit: Setup) -> tuple[Any, ...]:
    """Key of what takes long to compile: the student's network, and its gradient.

    It includes the earlier stages, whose shapes it is compiled for, and whose products
    take time to read, too.
    """
    student = unit.students[0]
    return unit.upstream, student.network, student.loss


def _seconds_left(grid: Grid, units: list[int]) -> float:
    """Trains the first unit, and estimates the time of all others in this process."""
    start = time.monotonic()
    for _ in grid.train(grid.units[units[0]], on_trained=lambda: None):
        pass
    return (time.monotonic() - start) * (len(units) - 1)
