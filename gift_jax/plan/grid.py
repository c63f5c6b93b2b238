"""A grid of jobs, whose common products are made once."""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gift_jax.plan.cost_model import Machine, Stage
from gift_jax.plan.products import products
from gift_jax.plan.workload import Workload
from gift_jax.specs import JobSpec


@dataclasses.dataclass(frozen=True)
class Plan:
    """A job, or all steps of a class-incremental training.

    Attributes:
      work: The job, or that of the last step.
      stages: Stages that no plan before it has.
      disk: Bytes of products by name.
      found: Names of products that plans before it have.
      orders: How many orders of classes there are.
      teachers: Teachers whose labels a class-incremental training uses.
    """

    work: Workload
    stages: list[Stage]
    disk: dict[str, int]
    found: list[str]
    orders: int = 0
    teachers: tuple[str, ...] = ()


def plans(job_specs: Iterable[JobSpec], machine: Machine) -> Iterator[Plan]:
    """What the jobs of a grid take, one after the other.

    Steps of a class-incremental training are one plan. What several of these jobs need
    is in the plan of the first, and students are trained once, as in `pipeline.grid`.

    Raises:
      InputError: an unknown dataset, or a batch size that does not divide.
    """
    made: set[str] = set()
    for steps in _grouped(_once(job_specs), _without_step):
        yield _plan(steps, machine, made)


def _plan(steps: Sequence[JobSpec], machine: Machine, made: set[str]) -> Plan:
    stages: list[Stage] = []
    disk: dict[str, int] = collections.Counter()
    before, found = frozenset(made), dict[str, None]()
    # Orders differ in which classes there are, not in how many.
    for orders in _grouped(steps, _without_order):
        of_orders = [products(Workload(spec, machine)) for spec in orders]
        for same in zip(*of_orders, strict=True):
            first, keys = same[0], {product.key for product in same}
            times = len(keys - made)
            made |= keys
            if times:
                stages += [stage.repeated(times) for stage in first.stages()]
                disk[first.name] += times * first.size()
            elif keys & before:
                found[first.name] = None
    continual = [spec.continual for spec in steps if spec.continual]
    return Plan(
        Workload(max(steps, key=_step), machine),
        stages,
        dict(disk),
        list(found),
        len({one.order for one in continual}),
        tuple(dict.fromkeys(one.teacher for one in continual)),
    )


def _once(job_specs: Iterable[JobSpec]) -> Iterator[JobSpec]:
    """Jobs, each with only those students that no job before it has."""
    known: set[str] = set()
    for spec in job_specs:
        keys = [spec.setup_key(students) for students in spec.setups]
        of_keys = zip(spec.setups, keys, strict=True)
        setups = tuple(students for students, key in of_keys if key not in known)
        known |= set(keys)
        if setups:
            yield dataclasses.replace(spec, setups=setups)


def _grouped(job_specs: Iterable[JobSpec], key: Any) -> list[list[JobSpec]]:
    found: dict[str, list[JobSpec]] = {}
    for spec in job_specs:
        found.setdefault(repr(key(spec)), []).append(spec)
    return list(found.values())


def _without_step(spec: JobSpec) -> JobSpec:
    return dataclasses.replace(spec, continual=None)


def _without_order(spec: JobSpec) -> JobSpec:
    if spec.continual is None:
        return spec
    continual = dataclasses.replace(spec.continual, order=0)
    return dataclasses.replace(spec, continual=continual)


def _step(spec: JobSpec) -> int:
    return spec.continual.step if spec.continual else 0
