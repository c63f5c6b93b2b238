"""What a job hands to its stages."""

import dataclasses
import gc
import weakref

import jax
import pytest

from gift_jax import specs
from gift_jax.configs import common
from gift_jax.data import real
from gift_jax.pipeline.context import Job


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    (spec,) = specs.expand(common.get_config("digits"))
    data = real.load_dataset("digits")
    directory = tmp_path_factory.mktemp("workdir")
    return Job(spec, directory, data, tuple(jax.devices()[:1]))


def test_evaluators_are_made_once_and_shared_with_other_jobs(job):
    transform = job.data.info.normalization
    other = job.with_spec(dataclasses.replace(job.spec, seed=1))
    assert other.evaluator("accuracy", transform) is job.evaluator(
        "accuracy", transform
    )
    shifted = dataclasses.replace(transform, mean=(0.5,))
    assert job.evaluator("accuracy", shifted) is not job.evaluator(
        "accuracy", transform
    )


def test_an_evaluator_of_another_teacher_or_preprocessing_is_freed(job):
    transform = job.data.info.normalization
    first = weakref.ref(job.evaluator("accuracy", transform))
    assert first() is job.evaluator("accuracy", transform)
    job.evaluator("accuracy", dataclasses.replace(transform, std=(0.25,)))
    gc.collect()
    assert first() is None


def test_a_job_that_tunes_nothing_has_no_validation_split(job):
    with pytest.raises(AssertionError, match="tuning"):
        job.evaluator("accuracy", job.data.info.normalization, "validation")


def test_a_recipe_knows_the_images_and_what_they_are_normalised_with(job):
    recipe = job.dataset_recipe()
    assert recipe["images"] == job.data.fingerprint
    other = dataclasses.replace(job.data.info, num_classes=11)
    changed = dataclasses.replace(job, data=dataclasses.replace(job.data, info=other))
    assert changed.dataset_recipe() != recipe
