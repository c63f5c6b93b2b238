"""Accuracies of tasks by hand."""

import types

import jax
import pytest

from gift_jax import evaluators
from gift_jax.evaluators.tasks import TaskAccuracyEvaluator
from gift_jax.runtime.errors import InputError
from tests.evaluators.test_accuracy import NORMALIZATION, PixelModel, Split, shifted

STATE = types.SimpleNamespace(evaluation_variables=shifted(0))


def evaluator(split, classes_per_step):
    return TaskAccuracyEvaluator(
        split,
        NORMALIZATION,
        classes_per_step=classes_per_step,
        devices=jax.devices()[:1],
        batch_size=4,
    )


def test_accuracies_of_tasks_by_hand():
    # The logits are highest at the pixel. Tasks: 0 and 1, 2 and 3, 4 and 5.
    split = Split(pixels=[0, 9, 1, 2, 0, 4], labels=[0, 0, 1, 2, 3, 4])
    found = evaluator(split, 2)(PixelModel(), STATE)
    assert found == {
        "top1_task1": pytest.approx(200 / 3), "top1_task2": 50, "top1_task3": 100
    }  # fmt: skip


def test_outputs_of_classes_to_come_take_no_part():
    """Pixel 9 has its best logit at class 9, and among the first two at class 1."""
    split = Split(pixels=[9, 9, 0], labels=[1, 0, 0])
    measured = evaluator(split, 2)
    assert measured(PixelModel(), STATE)["top1_task1"] == pytest.approx(100 / 3)
    restricted = evaluators.on_first_outputs(measured, 2)
    assert restricted(PixelModel(), STATE)["top1_task1"] == pytest.approx(200 / 3)


def test_a_job_without_steps_has_no_tasks():
    with pytest.raises(InputError, match=r"continual\.steps is 0"):
        evaluator(Split([0], [0]), None)
