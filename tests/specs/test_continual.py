"""Orders of classes against NumPy's, and steps."""

import itertools

import numpy as np
import pytest

from gift_jax.configs import common
from gift_jax.runtime.errors import InputError
from gift_jax.specs import continual, expand
from gift_jax.specs.continual import ContinualSpec


@pytest.mark.parametrize(
    ("seed", "first"),
    [
        # CL_DM.py of DM, and FRePo, in which the five orders stand as numbers.
        (0, (26, 86, 2, 55, 75)),
        (1, (80, 84, 33, 81, 93)),
        (2, (83, 30, 56, 24, 16)),
        (3, (93, 67, 6, 64, 96)),
        (4, (20, 10, 96, 16, 63)),
    ],
)
def test_orders_are_numpy_s(seed, first):
    np.random.seed(seed)
    order = continual.class_order(seed, 100)
    assert order == tuple(np.random.permutation(100).tolist())
    assert order[:5] == first


def test_classes_arrive_step_by_step():
    seen = [ContinualSpec(5, step, 0, "future").seen(100) for step in range(1, 6)]
    assert [len(classes) for classes in seen] == [20, 40, 60, 80, 100]
    for before, after in itertools.pairwise(seen):
        assert after[: len(before)] == before
    assert sorted(seen[-1]) == list(range(100))
    with pytest.raises(
        InputError, match=r"continual\.steps is 3, by which 100 classes"
    ):
        ContinualSpec(3, 1, 0, "future").seen(100)


def config(**fields):
    found = common.get_config("digits")
    found.continual.steps = 2
    found.update_from_flattened_dict(
        {k.replace("__", "."): v for k, v in fields.items()}
    )
    return found


def test_a_grid_has_all_steps_of_all_orders_with_all_teachers():
    jobs = expand(config(continual__orders=(0, 4), continual__teachers="masked+future"))
    found = [(s.continual.teacher, s.continual.order, s.continual.step) for s in jobs]
    assert found == [
        (teacher, order, step)
        for teacher in ("masked", "future")
        for order in (0, 4)
        for step in (1, 2)
    ]
    labels = {job.at_step().tagged("a", "soft_labels") for job in jobs}
    assert len(labels) == 8
    assert "a_continual=order4.step2of2.future" in labels
    assert {job.at_step().tagged("a", "distilled") for job in jobs} == {"a"}
    (plain,) = expand(config(continual__steps=0))
    assert plain.continual is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"continual__steps": 1}, "continual.steps is 1, expected 2 or more"),
        ({"continual__steps": -1}, "continual.steps is -1, expected 2 or more"),
        ({"continual__orders": (1, 1)}, "continual.orders is"),
        ({"continual__teachers": "maskd"}, "did you mean 'masked'"),
        (
            {"continual__teachers": "retrained", "relabel__source": "dataset",
             "distilled__name": "random"},
            "no teacher is trained here",
        ),
        (
            {"relabel__source": "fkd", "relabel__path": "x",
             "distilled__name": "random"},
            "relabel.source is 'fkd'",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        expand(config(**fields))


@pytest.mark.parametrize(
    ("teacher", "distilled", "expected"),
    [
        ("future", "random", True),
        ("masked", "random", True),
        ("retrained", "random", False),
        ("retrained", "rded", True),  # whose images are made with it
    ],
)
def test_a_teacher_of_all_classes_is_trained_where_something_needs_it(
    teacher, distilled, expected
):
    fields = {"continual__teachers": teacher, "distilled__name": distilled}
    for job in expand(config(**fields)):
        assert job.needs_teacher and job.needs_teacher_of_all_classes == expected
