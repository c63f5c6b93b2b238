"""How far losses stay behind the best of a condition."""

import pytest

from gift_jax.report import build, figures, regret
from gift_jax.report.groups import TUNED
from tests.report.rows import choice, compared, rows, texts, write_rows

# By loss: accuracies of two seeds under each of two optimizers.
ACCURACIES = {
    "kl": ([10.0, 12.0], [30.0, 31.0]),
    "gift": ([40.0, 42.0], [28.0, 29.0]),
    "soft_ce": ([40.5, 40.7], [29.5, 30.5]),
}


def two_optimizers(accuracies=ACCURACIES):
    return [
        row
        for loss, under in accuracies.items()
        for optimizer, values in zip(("sgd", "adamw"), under, strict=True)
        for row in rows(loss, values, optimizer=optimizer)
    ]


def test_the_worst_and_the_mean_are_those_of_the_means_over_seeds():
    found = {one.loss: one for one in regret.regrets(compared(two_optimizers()))}
    # The best are gift under sgd, 41, and kl under adamw, 30.5.
    expected = {"kl": [30.0, 0.0], "gift": [0.0, 2.0], "soft_ce": [0.4, 0.5]}
    for loss, points in expected.items():
        assert list(found[loss].points.values()) == pytest.approx(points)
        assert found[loss].largest == pytest.approx(max(points))
        assert found[loss].mean == pytest.approx(sum(points) / 2)
    assert list(found) == ["soft_ce", "gift", "kl"]
    assert [one.close for one in found.values()] == [2, 1, 1]


def test_the_table_names_the_worst_condition():
    assert texts(regret.table(compared(two_optimizers()))) == [
        ["soft_ce", "adamw", "0.50", "0.45", "2", "2"],
        ["gift", "adamw", "2.00", "1.00", "1", "2"],
        ["kl", "sgd", "30.00", "15.00", "1", "2"],
    ]


def test_a_condition_that_a_loss_diverges_in_is_counted_apart():
    found = two_optimizers()
    for row in found:
        if (row["loss"], row["optimizer"]) == ("soft_ce", "adamw"):
            row |= {"status": "diverged", "top1_last": None}
    table = regret.table(compared(found))
    assert table.header[-1] == "diverged"
    assert texts(table)[-1] == ["soft_ce", "sgd", "0.40", "0.40", "1", "1", "1"]


def test_a_tuned_loss_is_what_others_are_behind():
    under = [{"optimizer": name} for name in ("sgd", "adamw")]
    found, choices = [], []
    for fields in under:
        found += rows("gift", [40.0, 41.0], **fields)
        found += rows("kl", [30.0, 31.0], **fields)
        found += rows("kl", [42.0, 43.0], **fields, learning_rate=0.01)
        choices += [choice("kl", 0.01, **fields), choice("gift", 0.001, **fields)]
    by_name = {one.label: one for one in regret.regrets(compared(found, None, choices))}
    assert by_name["gift"].largest == by_name["gift, tuned"].mean == 2.0
    assert (by_name["kl"].mean, by_name["kl, tuned"].mean) == (12.0, 0.0)
    assert by_name["kl, tuned"].protocol == TUNED


@pytest.mark.parametrize(
    "accuracies",
    [
        {"kl": ACCURACIES["kl"]},  # nothing to compare with
        {loss: (of[0], []) for loss, of in ACCURACIES.items()},  # one condition
    ],
)
def test_there_is_none_without_losses_in_several_conditions(accuracies):
    groups = compared(two_optimizers(accuracies))
    assert regret.regrets(groups) == [] and regret.table(groups) is None


def test_it_is_in_the_report_with_its_numbers(tmp_path):
    write_rows(tmp_path, two_optimizers())
    report = build.make_report([tmp_path])
    (figure,) = (f for f in report.figures if f.name == "regret")
    assert isinstance(figure, figures.Figure)
    assert figure.data[0] == ["loss", "protocol", "condition", "regret"]
    assert ["gift", None, "adamw", 2.0] in figure.data
    assert len(figure.data) == 1 + 6
    assert "regret" in [table.name for table in report.tables]
