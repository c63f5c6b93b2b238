"""One student of a job: its name, recipe, place and row."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax

import gift_jax
from gift_jax.pipeline.labelling import LabelledDataset
from gift_jax.pipeline.products import Product, file_fingerprint, fingerprint
from gift_jax.pipeline.stages import Job
from gift_jax.specs import settings
from gift_jax.specs.students import StudentSpec
from gift_jax.train import checkpoint

# Where runs lie that are measured on a split.
_DIRECTORIES = {"test": "runs", "validation": "tuning"}


@dataclasses.dataclass(frozen=True)
class Batching:
    """The batch size over all devices, and the devices it is spread over."""

    size: int
    devices: tuple[jax.Device, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One student of a job, and its place in the work directory.

    Attributes:
      job: The job.
      labelled: What it is trained on.
      spec: The student.
      split: The split it is measured on, "test" or "validation".
      batching: Of its training.
    """

    job: Job
    labelled: LabelledDataset
    spec: StudentSpec
    split: str
    batching: Batching

    @functools.cached_property
    def title(self) -> str:
        """Its name in the work directory, other for every other student."""
        spec, section = self.spec, self.job.config.train
        parts = [
            self.labelled.title,
            settings.network_label(self.job.config.student, spec.network),
            spec.loss_label,
            spec.optimizer_label,
            f"lr{spec.optimizer.learning_rate:g}",
            f"e{section.epochs}",
            f"b{section.batch_size}" if section.batch_size else "",
            f"from{self._init_from[:8]}" if self._init_from else "",
            f"s{spec.seed}",
        ]
        return "_".join(filter(None, parts))

    @functools.cached_property
    def _init_from(self) -> str | None:
        directory = self.job.config.train.init_from
        if not directory:
            return None
        return file_fingerprint(checkpoint.latest_weights(pathlib.Path(directory)))

    @functools.cached_property
    def recipe(self) -> dict[str, Any]:
        """What it is made from."""
        config = self.job.config
        return {
            "labelled": self.labelled.fingerprint,
            "student": dataclasses.asdict(self.spec),
            "network": settings.network_recipe(config.student, self.spec.network),
            "epochs": config.train.epochs,
            "batch_size": self.batching.size,
            "eval_every": self.eval_every,
            "init_from": self._init_from,
            "split": self.split,
        }

    @property
    def product(self) -> Product:
        """Its directory."""
        directory = self.job.workdir / _DIRECTORIES[self.split] / self.title
        return Product(directory, self.recipe)

    @property
    def eval_every(self) -> int:
        """Epochs between evaluations."""
        section = self.job.config.train
        if self.split == "validation":
            return section.epochs
        return section.eval_every or max(section.epochs // 4, 1)

    def row(self, **outcome: Any) -> dict[str, Any]:
        """Its row for the results file."""
        config, spec = self.job.config, self.spec
        devices = self.batching.devices
        return {
            "run_id": self.title,
            "dataset": self.job.data.info.name,
            **self.labelled.facts,
            "student": settings.network_label(config.student, spec.network),
            "loss": spec.loss_label,
            "optimizer": spec.optimizer_label,
            "learning_rate": spec.optimizer.learning_rate,
            "weight_decay": spec.optimizer.weight_decay,
            "schedule": spec.optimizer.schedule,
            "seed": spec.seed,
            "epochs": config.train.epochs,
            "batch_size": self.batching.size,
            **outcome,
            "devices": f"{len(devices)} {devices[0].platform}",
            "version": gift_jax.__version__,
            "jax_version": jax.__version__,
            "config_hash": fingerprint(self.recipe),
        }
