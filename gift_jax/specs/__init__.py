"""One checked, immutable description for each section of a config."""

from gift_jax.specs.dataset import DatasetSpec
from gift_jax.specs.distilled import DistilledSpec
from gift_jax.specs.job import JobSpec, expand
from gift_jax.specs.network import NetworkSpec
from gift_jax.specs.student import LossSpec, StudentSpec
from gift_jax.specs.teacher import TeacherSpec
from gift_jax.specs.training import RelabelSpec, TrainSpec, TuningSpec

__all__ = [
    "DatasetSpec",
    "DistilledSpec",
    "JobSpec",
    "LossSpec",
    "NetworkSpec",
    "RelabelSpec",
    "StudentSpec",
    "TeacherSpec",
    "TrainSpec",
    "TuningSpec",
    "expand",
]
