"""The matrix of architectures by hand."""

import numpy as np
import pytest
from scipy import stats

from gift_jax.report import build, groups, matrix
from gift_jax.report.formatting import ABSENT
from tests.report.rows import compared, rows, texts, write_rows

# Of two seeds, by teacher and student.
ACCURACIES = {
    ("conv3", "conv3"): [50.0, 52.0],
    ("conv3", "vgg11"): [45.0, 46.0],
    ("vgg11", "conv3"): [40.0, 41.0],
    ("vgg11", "vgg11"): [48.0, 48.5],
}


def cells(loss="gift", accuracies=ACCURACIES, **fields):
    return [
        r
        for (teacher, student), values in accuracies.items()
        for r in rows(
            loss, values, teacher=teacher, student=student, trained_on=f"a{teacher}",
            **fields,
        )
    ]  # fmt: skip


def test_drops_are_from_the_diagonal_of_the_row_paired_over_seeds():
    (found,) = matrix.matrices(compared(cells()))
    assert (found.teachers, found.students) == (["conv3", "vgg11"],) * 2
    drop = found.drop("conv3", "vgg11")
    assert (drop.n, drop.mean) == (2, -5.5)
    assert drop.sd == pytest.approx(np.std([-5, -6], ddof=1))
    assert found.drop("vgg11", "conv3").mean == -7.75
    assert found.drop("conv3", "conv3").mean is None
    assert found.mean_drop("conv3") == -5.5
    head, *lines = matrix.data([found])
    by_cell = {tuple(line[-7:-5]): dict(zip(head, line, strict=True)) for line in lines}
    half_width = stats.t.ppf(0.975, 1) * drop.sd / 2**0.5
    cell = by_cell["conv3", "vgg11"]
    assert cell["drop_half_width"] == pytest.approx(half_width)


def test_the_table_has_a_row_for_every_loss_and_teacher():
    less = {k: v for k, v in ACCURACIES.items() if k != ("vgg11", "conv3")}
    table = matrix.table(
        matrix.matrices(compared([*cells("kl"), *cells("gift", less)]))
    )
    assert table.header[-3:] == ["conv3", "vgg11", "mean drop"]
    lines = texts(table)
    assert [line[:2] for line in lines] == [
        [loss, teacher] for loss in ("kl", "gift") for teacher in ("conv3", "vgg11")
    ]
    minus = "\N{MINUS SIGN}"
    assert lines[0][2:] == [
        "51.00 ± 1.41", f"45.50 ± 0.71 ({minus}5.50)", f"{minus}5.50"
    ]  # fmt: skip
    assert lines[3][2:] == [ABSENT, "48.25 ± 0.35", ABSENT]


def test_what_diverged_is_said_and_nothing_beside_it_is_bold():
    few = {**ACCURACIES, ("conv3", "vgg11"): [1.0, 1.5, 2.0]}
    few["conv3", "conv3"] = [50.0, 51.0, 52.0]
    found = cells(accuracies=few)
    found[3].update(status="diverged", top1_last=None)  # the first of conv3 on vgg11
    (line, _) = matrix.table(matrix.matrices(compared(found))).cells
    assert "(1 of 3 diverged)" in line[3].text
    assert line[3].verdict == 0


def test_images_that_no_network_made_are_only_labelled_by_one():
    made = [
        {**one, "distilled_fingerprint": one["teacher"].encode().hex()}
        for one in cells()
    ]
    shared = cells(distilled_fingerprint="ab")
    for found, heading in ((made, "distilled with"), (shared, "labelled by")):
        drawn = matrix.matrices(compared(found))
        assert heading in matrix.table(drawn).header
        (axes, *_) = matrix.figure(drawn).axes
        assert axes.get_ylabel() == heading


def test_data_seeds_have_matrices_of_their_own():
    found = [*cells(), *cells(data_seed=1)]
    for one in found[len(found) // 2 :]:
        one["trained_on"] += "1"
    assert len(matrix.matrices(compared(found))) == 2


def test_images_of_one_network_have_a_row():
    one = {k: v for k, v in ACCURACIES.items() if k[0] == "conv3"}
    (found,) = matrix.matrices(compared(cells(accuracies=one)))
    assert found.teachers == ["conv3"]
    assert found.students == ["conv3", "vgg11"]


@pytest.mark.parametrize(
    "accuracies",
    [
        {("conv3", "conv3"): [1.0]},
        {("conv3", "vgg11"): [1.0], ("conv3", "conv2"): [1.0]},
        {("conv3", "conv3"): [1.0], ("vgg11", "vgg11"): [1.0]},
    ],
)
def test_without_a_diagonal_or_something_beside_it_there_is_none(accuracies):
    assert matrix.matrices(compared(cells(accuracies=accuracies))) == []


def test_a_network_of_the_user_s_own_has_a_column():
    own = [r | {"code": "ab12cd34"} if r["student"] == "vgg11" else r for r in cells()]
    (found,) = matrix.matrices(compared(own))
    (of_built_in,) = matrix.matrices(compared(cells()))
    assert found.drop("conv3", "vgg11") == of_built_in.drop("conv3", "vgg11")


def test_two_groups_in_a_cell_make_none():
    twice = [*cells(), *rows("gift", [1.0], teacher="conv3", student="conv3",
                             trained_on="b0")]  # fmt: skip
    assert matrix.matrices(groups.group_rows(twice)) == []


def test_a_report_has_one_picture_instead_of_one_for_every_cell(tmp_path):
    write_rows(tmp_path, [*cells("kl"), *cells("gift")])
    files = {path.name for path in build.write_report([tmp_path], tmp_path / "report")}
    assert {"cross_architecture.png", "cross_architecture.csv"} <= files
    assert not any(name.startswith("accuracy_") for name in files)
    lines = (
        (tmp_path / "report" / "cross_architecture.png.csv").read_text().splitlines()
    )
    assert len(lines) == 1 + 2 * len(ACCURACIES)
