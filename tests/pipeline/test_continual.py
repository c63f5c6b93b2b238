"""Labels of a step: whose they are, and of which classes."""

import dataclasses
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax import specs
from gift_jax.configs import digits
from gift_jax.data import real
from gift_jax.pipeline import continual, students
from gift_jax.pipeline.context import Job
from gift_jax.pipeline.distilled import make_distilled
from gift_jax.pipeline.teacher import JobTeacher
from gift_jax.specs.continual import class_order
from gift_jax.teachers import CallableTeacher

pytestmark = pytest.mark.usefixtures("one_device")

WEIGHTS = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
TEACHER = CallableTeacher(
    "linear", lambda images: np.reshape(images, (-1, 64)) @ WEIGHTS, (8, 8, 1), 10
)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    config = digits.get_config("distill=random,ipc=2,views=1,epochs=1")
    config.augment.diffaug = ""
    config.teacher.min_accuracy = 0.0
    config.continual.steps = 5
    config.continual.orders = (3,)
    directory = tmp_path_factory.mktemp("steps")
    data = real.load_dataset("digits")
    found = [
        Job(spec, directory, data, tuple(jax.devices()[:1]))
        for spec in specs.expand(config)
    ]
    return {(j.spec.continual.teacher, j.spec.continual.step): j for j in found}


class Late(nn.Module):
    """Its best answer is a class to come, the next one the first class."""

    @nn.compact
    def __call__(self, images, train):
        return jnp.zeros((len(images), 10)).at[:, 0].set(1).at[:, 9].set(2)


def test_classes_to_come_take_no_part_in_accuracies(jobs):
    job = jobs["future", 2]
    of_step = continual.step_job(job)
    labelled = continual.label_step(
        job, of_step, make_distilled(job, None), JobTeacher(TEACHER, TEACHER, 50.0)
    )
    student = job.spec.setups[0][0]
    run = students.Run(of_step, labelled, student, "test", 20, of_step.devices)
    (measure,) = run.evaluators
    found = measure(Late(), types.SimpleNamespace(evaluation_variables={}))
    expected = 100 * np.mean(of_step.data.test.labels == 0)
    assert found["top1"] == pytest.approx(expected) and 0 < expected < 100


def test_steps_and_kinds_of_labels_name_what_they_have_in_common(jobs):
    def named(job):
        distilled = make_distilled(job, None)
        of_step = continual.step_job(job)
        teacher = JobTeacher(TEACHER, TEACHER, 50.0)
        labelled = continual.label_step(job, of_step, distilled, teacher)
        return labelled.columns["continual_trained_on"]

    first = jobs["future", 1]
    other_batch = dataclasses.replace(first.spec.train, batch_size=2)
    other = first.with_spec(dataclasses.replace(first.spec, train=other_batch))
    alike = {named(jobs[place]) for place in [("future", 1), ("masked", 2)]}
    assert alike == {named(first)} != {named(other)}


@pytest.mark.parametrize(("teacher", "step"), [("future", 2), ("masked", 2)])
def test_labels_are_columns_of_the_teacher_s(jobs, teacher, step):
    job = jobs[teacher, step]
    distilled = make_distilled(job, None)
    of_step = continual.step_job(job)
    labelled = continual.label_step(
        job, of_step, distilled, JobTeacher(TEACHER, TEACHER, 50.0)
    )
    order = class_order(3, 10)
    seen = order[: 2 * step]
    assert of_step.data.info.num_classes == len(seen)
    np.testing.assert_array_equal(
        np.array(seen)[of_step.data.test.labels],
        job.data.test.labels[np.isin(job.data.test.labels, seen)],
    )
    rows = np.concatenate([np.flatnonzero(distilled.dataset.labels == c) for c in seen])
    outputs = order if teacher == "future" else seen
    expected = TEACHER.logits(distilled.dataset.images[rows])[:, list(outputs)]
    logits = labelled.soft_labels.start_reading(0)().logits
    np.testing.assert_allclose(logits, expected, atol=0.02)
    assert labelled.num_classes == len(outputs)
    # Class i of the students is the i-th that arrived, whoever labels.
    np.testing.assert_array_equal(
        np.array(seen)[labelled.data.labels], np.repeat(seen, 2)
    )
    assert labelled.columns["continual_teacher"] == teacher
    assert f"order3.step{step}of5.{teacher}" in labelled.name
