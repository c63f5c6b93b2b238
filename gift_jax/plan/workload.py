"""A job on a machine: how many images, students and labels there are."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

from gift_jax import distill
from gift_jax.data.info import DatasetInfo
from gift_jax.distill.matching.base import Matching
from gift_jax.distill.recovery.base import Recovery
from gift_jax.evaluators.batches import RESIDENT_BYTES
from gift_jax.plan.cost_model import Machine
from gift_jax.plan.datasets import RealData, real_data
from gift_jax.soft_labels import codecs
from gift_jax.specs import JobSpec, NetworkSpec, StudentSpec


class Trainings(NamedTuple):
    """Students that differ in seed and learning rate, and where they are measured."""

    first: StudentSpec
    students: int
    split: str


@dataclasses.dataclass(frozen=True)
class Workload:
    """A job, one of those of `specs.expand`, on a machine."""

    spec: JobSpec
    machine: Machine

    @functools.cached_property
    def real(self) -> RealData:
        """All classes of the real dataset.

        Raises:
          FileNotFoundError, InputError: its size cannot be found out.
        """
        return real_data(self.spec.dataset)

    @functools.cached_property
    def seen(self) -> RealData:
        """What students are measured on; in a class-incremental step, classes so far.

        Raises:
          InputError: the classes cannot be divided into steps.
        """
        continual, classes = self.spec.continual, self.real.info.num_classes
        if continual is None:
            return self.real
        return self.real.of_classes(len(continual.seen(classes)))

    @property
    def student_info(self) -> DatasetInfo:
        """Info of the students' training, with the classes that soft labels have."""
        continual, info = self.spec.continual, self.real.info
        if continual is None:
            return info
        outputs = continual.outputs(info.num_classes)
        return dataclasses.replace(info, num_classes=len(outputs))

    @property
    def distilled_images(self) -> int:
        """Images that students are trained on."""
        return self.seen.info.num_classes * self.spec.distilled.ipc

    @functools.cached_property
    def trainings(self) -> dict[NetworkSpec, list[Trainings]]:
        """All students by network; of tuning, only rates that are tried in any case."""
        tuning = self.spec.tuning
        found: dict[NetworkSpec, list[Trainings]] = {}
        for first, *others in self.spec.setups:
            of_network = found.setdefault(first.network, [])
            of_network.append(Trainings(first, 1 + len(others), "test"))
            if tuning.enabled:
                tried = len(tuning.factors) * len(tuning.seeds)
                validated = Trainings(first, tried, "validation")
                of_network += [validated, of_network[-1]]
        return found

    @property
    def at_once(self) -> int:
        """The most students that train at once."""
        at_once = self.spec.train.students_at_once
        trainings = itertools.chain(*self.trainings.values())
        return min(at_once, max(t.students for t in trainings))

    @property
    def soft_label_bytes(self) -> int:
        """Bytes of the soft labels that are stored."""
        if not self.spec.relabel.is_stored:
            return 0
        return codecs.stored_bytes(
            self.spec.relabel.codec,
            views=self.spec.labelled_views,
            num_images=self.distilled_images,
            num_classes=self.student_info.num_classes,
        )

    @property
    def resident_bytes(self) -> int:
        """Bytes of the test images that stay on one device."""
        test = math.prod(self.seen.info.image_shape) * self.seen.images["test"]
        per_device = math.ceil(test / self.machine.devices)
        return per_device if per_device <= RESIDENT_BYTES else 0

    @property
    def host_bytes(self) -> int:
        """Bytes of the train split's 8-bit pixels that the host keeps to distill."""
        if not isinstance(self.spec.distilled.distiller, (Matching, distill.Datm)):
            return 0
        return math.prod(self.real.info.image_shape) * self.real.images["train"]

    def left_out(self) -> Iterator[str]:
        """What cannot be counted, as this project has no network for it."""
        spec = self.spec
        if spec.needs_teacher and spec.teacher.network is None:
            yield f"the teacher {spec.teacher.name}: its test, and all that it labels"
        known = (
            *(distill.Random, distill.Rded, Recovery, Matching, distill.Datm),
            type(None),
        )
        if not isinstance(spec.distilled.distiller, known):
            yield f"the distiller {spec.distilled.name}"
        for name in spec.train.evaluators:
            if name != "accuracy":
                yield f"the evaluator {name}"
