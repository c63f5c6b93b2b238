"""Averages, forgetting and intervals of class-incremental training by hand."""

import numpy as np
import pytest
from scipy import stats

from gift_jax.report import build, continual
from gift_jax.report.formatting import ABSENT
from gift_jax.runtime.errors import InputError
from tests.report.rows import row, texts, write_rows


def student(accuracies, *, order=0, seed=0, teacher="future", loss="gift", tasks=None):
    """Rows of all steps; `tasks[k][j]` is the accuracy on task j after step k."""
    found = []
    for step, top1 in enumerate(accuracies, start=1):
        of_tasks = tasks[step - 1] if tasks else []
        found.append(
            row(
                loss,
                seed,
                top1,
                trained_on=f"a{order}{step}{teacher}",
                continual_steps=len(accuracies),
                continual_step=step,
                continual_order=order,
                continual_teacher=teacher,
                **{f"top1_task{j + 1}_last": a for j, a in enumerate(of_tasks)},
            )
        )
    return found


TASKS = [[90.0], [70.0, 80.0], [60.0, 85.0, 75.0]]


def test_forgetting_by_hand():
    """Of task 1 the best was 90 and 60 is left, task 2 was learnt on: (30 - 5) / 2."""
    assert continual.forgetting(student([90.0, 75.0, 73.0], tasks=TASKS)) == 12.5
    assert continual.forgetting(student([90.0, 75.0])) is None


def test_students_of_an_order_are_averaged_and_orders_have_an_interval():
    found = [
        *student([80.0, 40.0], order=0, seed=0),
        *student([90.0, 50.0], order=0, seed=1),
        *student([70.0, 30.0], order=1, seed=0),
        *student([70.0, 10.0], order=1, seed=1),
        *student([10.0, 10.0], order=2, seed=0)[:1],  # not finished
    ]
    (curve,) = continual.curves(found)
    of_orders = continual.accuracies(curve)
    np.testing.assert_array_equal(of_orders[0], [85, 45])
    np.testing.assert_array_equal(of_orders[1], [70, 20])
    assert of_orders.keys() == {0, 1}
    of_steps, averages = continual.tables([curve])
    assert texts(of_steps)[0][2:] == ["77.50 ± 10.61", "32.50 ± 17.68"]
    # Averages of 65 and 45: mean 55, deviation 14.14, half width t * 14.14 / sqrt(2).
    half = stats.t.ppf(0.975, 1) * 10
    assert texts(averages)[0][2:5] == [
        "55.00 ± 14.14", f"[{55 - half:.2f}, {55 + half:.2f}]", "32.50 ± 17.68"
    ]  # fmt: skip


def test_error_bars_are_intervals_over_orders():
    found = [*student([50.0, 40.0], order=0), *student([60.0, 46.0], order=1)]
    (axes,) = continual.figure(continual.curves(found)).axes
    (bars,) = axes.containers[0].lines[2]
    # Deviations of 7.07 and 4.24, over the root of two: 5 and 3.
    expected = [
        (mean - stats.t.ppf(0.975, 1) * error, mean + stats.t.ppf(0.975, 1) * error)
        for mean, error in ((55, 5), (43, 3))
    ]
    np.testing.assert_allclose([s[:, 1] for s in bars.get_segments()], expected)


def test_other_teachers_and_other_images_are_other_curves():
    found = [
        *student([50.0, 40.0]),
        *student([52.0, 42.0]),
        *student([60.0, 50.0]),
    ]
    for one in found[2:4]:
        one["data_seed"] = 1
    for one in found[4:]:  # one teacher, trained anew at every step
        one["teacher"] = f"resnet20_continual=order0step{one['continual_step']}"
    curves = continual.curves(found)
    assert [list(continual.accuracies(c)[0]) for c in curves] == [
        [50.0, 40.0], [52.0, 42.0], [60.0, 50.0]
    ]  # fmt: skip
    with pytest.raises(InputError, match="same settings and seed 0"):
        continual.curves([*found, *student([51.0, 41.0])])


def test_other_teachers_images_and_batch_sizes_of_the_same_name_are_other_curves():
    first, second = (
        [{**one, "continual_trained_on": name} for one in student(accuracies, order=k)]
        for k, (name, accuracies) in enumerate(
            [("a1" * 8, [50.0, 40.0]), ("b2" * 8, [60.0, 50.0])]
        )
    )
    curves = continual.curves([*first, *second])
    assert [list(continual.accuracies(c)) for c in curves] == [[0], [1]]
    (left, *_), *_ = texts(continual.tables(curves)[1])
    assert left == "a1a1a1"
    same = [{**one, "continual_trained_on": "b2" * 8} for one in student([1.0, 1.0])]
    assert len(continual.curves([*first, *same])) == 2


def test_a_student_that_diverged_is_counted_and_leaves_no_verdict():
    found = []
    for order in (0, 1, 2):
        for seed in (0, 1):
            for teacher, gain in (("future", 0.0), ("masked", 5.0 + 0.1 * order)):
                top1 = [50.0 + 10 * seed + gain, 40.0 + 10 * seed + gain]
                found += student(top1, order=order, seed=seed, teacher=teacher)

    def masked(rows):
        curves = continual.curves(rows)
        by_teacher = {line[1].text: line for line in continual.tables(curves)[1].cells}
        return by_teacher["masked"]

    average, difference = masked(found)[2], masked(found)[-2]
    assert "diverged" not in average.text and difference.verdict == 1
    lost = next(r for r in found if r["continual_teacher"] == "masked" and r["seed"])
    lost |= {"status": "diverged", "top1_last": None}
    average, after = masked(found)[2], masked(found)[-2]
    assert "(1 of 6 students diverged)" in average.text
    # The other student of that order is paired with itself.
    assert (after.text, after.verdict) == (difference.text, 0)


def test_steps_of_other_images_are_other_curves():
    """Whose fingerprint is of the classes of a step."""
    curves = continual.curves(
        [
            {**one, "trained_on": name, "distilled_dir": name}
            for name in ("rded_ipc10", "rded_ipc10_crops_per_image=1")
            for one in student([90.0, 80.0])
        ]
    )
    assert [curve.settings["distilled_dir"] for curve in curves] == [
        *("rded_ipc10", "rded_ipc10_crops_per_image=1")
    ]
    assert "distilled dir" in continual.tables(curves)[0].header


def test_teachers_are_compared_with_that_of_the_future_order_by_order():
    found = [
        *student([50.0, 40.0], order=0),
        *student([60.0, 50.0], order=1),
        *student([52.0, 42.0], order=0, teacher="masked"),
        *student([63.0, 53.0], order=1, teacher="masked"),
        *student([1.0, 1.0], order=1, teacher="masked", loss="kl"),
    ]
    curves = continual.curves(found)
    by_place = {tuple(line[:2]): line for line in texts(continual.tables(curves)[1])}
    assert by_place["gift", "masked"][-2] == "+2.50"
    assert by_place["gift", "future"][-2] == ABSENT
    assert by_place["kl", "masked"][-2] == ABSENT


@pytest.mark.parametrize("with_others", [False, True])
def test_there_is_a_report_of_them(tmp_path, with_others):
    found = [
        r
        for order in (0, 1)
        for teacher in ("future", "masked")
        for r in student([90.0 - order, 75.0, 73.0], tasks=TASKS, order=order,
                         teacher=teacher)
    ]  # fmt: skip
    # Of one loss no student has come to its last step yet.
    found += student([80.0, 70.0, 60.0], loss="kl")[:2]
    # Runs of the same settings and seed in two orders are no doublets.
    for r in found:
        r |= {"run_id": f"{r['run_id']}", "trained_on": "a"}
    others = [row("gift", 0, 50.0)] if with_others else []
    write_rows(tmp_path, [*found, *others])
    files = {path.name for path in build.write_report([tmp_path], tmp_path / "report")}
    assert {"continual.csv", "continual_steps.tex", "continual.png"} <= files
    assert ("accuracy.csv" in files) == with_others
    text = (tmp_path / "report" / "report.md").read_text()
    assert f"{14 + with_others} runs" in text
    assert "12.50" in text


def test_what_was_learnt_later_is_forgotten_too():
    """The best of task 1 comes after step 2: (80 - 60) and (75 - 75), over two."""
    tasks = [[50.0], [80.0, 75.0], [60.0, 75.0, 90.0]]
    assert continual.forgetting(student([50.0, 77.0, 75.0], tasks=tasks)) == 10.0


def test_a_student_of_the_future_that_diverged_leaves_no_verdict():
    found = []
    for order in (0, 1, 2):
        for seed in (0, 1):
            for teacher, gain in (("future", 0.0), ("masked", 5.0 + 0.1 * order)):
                top1 = [50.0 + gain, 40.0 + gain]
                found += student(top1, order=order, seed=seed, teacher=teacher)
    lost = next(r for r in found if r["continual_teacher"] == "future" and r["seed"])
    lost |= {"status": "diverged", "top1_last": None}
    lines = continual.tables(continual.curves(found))[1].cells
    (masked,) = (line for line in lines if line[1].text == "masked")
    assert masked[-2].verdict == 0 and masked[2].verdict == 0


def test_one_step_forgets_nothing_that_is_known():
    assert continual.forgetting(student([50.0], tasks=[[50.0]])) is None
