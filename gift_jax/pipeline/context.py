"""What all stages and students of one job share."""

import dataclasses
import pathlib
from typing import Any

import jax

from gift_jax import evaluators
from gift_jax.data import preprocess, real
from gift_jax.runtime import hosts
from gift_jax.specs import JobSpec
from gift_jax.teachers import Teacher


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A requested job, and where it runs.

    Attributes:
      spec: Spec of the job.
      workdir: Directory of the products.
      data: The real dataset.
      devices: Local devices.
    """

    spec: JobSpec
    workdir: pathlib.Path
    data: real.RealDataset
    devices: tuple[jax.Device, ...]
    _evaluators: dict[Any, tuple[Any, evaluators.Evaluator]] = dataclasses.field(
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
        """The evaluator of that name on a split with some preprocessing.

        The one of the latest preprocessing and teacher is kept, with its data in memory
        and on devices.

        Args:
          name: Name of an evaluator.
          transform: Preprocessing of pixels to network inputs.
          split: "test" or "validation".
          teacher: Teacher to compare with.
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
        place, made_for = (name, split, batch_size), (transform, of_teacher)
        if place in self._evaluators and self._evaluators[place][0] == made_for:
            return self._evaluators[place][1]
        self._evaluators.pop(place, None)  # freed before another is made
        made = evaluators.make_evaluator(
            name,
            images,
            transform,
            devices=hosts.devices(self.devices),
            batch_size=batch_size,
            workers=self.spec.dataset.workers,
            **context,
        )
        self._evaluators[place] = made_for, made
        return made

    def dataset_recipe(self) -> dict[str, Any]:
        """Properties of the real dataset that change the products made from it."""
        return {
            **dataclasses.asdict(self.data.info),
            "images": self.data.fingerprint,
        }
