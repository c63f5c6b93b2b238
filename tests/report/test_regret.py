"""How far losses stay behind the best of a condition."""

import pytest

from gift_jax.report import build, figures, regret
from gift_jax.report.statistics import summarize
from tests.report.rows import choice, compared, rows, texts, write_rows

# By loss: accuracies of two seeds under each of two optimizers.
ACCURACIES = {
    "kl": ([10.0, 12.0], [30.0, 31.0]),
    "gift": ([40.0, 42.0], [28.0, 29.0]),
    "soft_ce": ([40.5, 40.7], [29.5, 30.5]),
}

# Of three seeds.
SPREAD = {
    "kl": ([30.0, 30.0, 30.0], [31.0, 32.0, 33.0]),
    "gift": ([40.0, 41.0, 42.0], [30.0, 30.0, 31.0]),
    "soft_ce": ([40.0, 41.0, 42.0], [29.0, 30.0, 29.0]),
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
    table = regret.table(compared(two_optimizers(), None))
    assert table.header[2:] == [
        "largest", "interval", "mean", "its interval", "within 0.5", "conditions"
    ]  # fmt: skip
    cells = texts(table)
    assert [[*line[:3], line[4], *line[6:]] for line in cells] == [
        ["soft_ce", "adamw", "0.50", "0.45", "2", "2"],
        ["gift", "adamw", "2.00", "1.00", "1", "2"],
        ["kl", "sgd", "30.00", "15.00", "1", "2"],
    ]


def test_intervals_are_paired_over_seeds_to_the_best_of_the_condition():
    found = {
        one.loss: one for one in regret.regrets(compared(two_optimizers(SPREAD), None))
    }
    kl = found["kl"]  # behind gift under sgd by 10, 11 and 12, and the best under adamw
    (under_sgd, under_adamw) = kl.behind.values()
    expected = summarize([10.0, 11.0, 12.0])
    assert under_sgd.paired.interval == pytest.approx(expected.interval)
    assert under_adamw.paired.interval is None
    # Over the two conditions, seed by seed.
    assert kl.mean_over_seeds.interval == pytest.approx(
        summarize([5.0, 5.5, 6.0]).interval
    )
    assert kl.mean_over_seeds.mean == kl.mean == 5.5
    line = texts(regret.table(compared(two_optimizers(SPREAD), None)))[-1]
    assert line[2:6] == ["11.00", "[+8.52, +13.48]", "5.50", "[+4.26, +6.74]"]
    groups = compared(two_optimizers(SPREAD), None)
    data = regret.data([kl], groups)[1:]
    by_condition = {line[2]: line[-2:] for line in data}
    assert by_condition["sgd"] == pytest.approx(list(expected.interval))
    assert by_condition["adamw"] == [None, None]


def test_the_table_says_where_a_loss_is_below_the_baseline():
    table = regret.table(compared(two_optimizers(SPREAD), "gift"))
    assert table.header[-2:] == ["least over gift", "below gift"]
    by_loss = {line[0]: line for line in texts(table)}
    minus = "\N{MINUS SIGN}"
    assert by_loss["kl"][-2:] == [
        f"{minus}11.00 [{minus}13.48, {minus}8.52]", "1"
    ]  # fmt: skip
    # Behind it by 1, 0 and 2 under adamw: the interval has zero in it.
    assert by_loss["soft_ce"][-2:] == [f"{minus}1.00 [{minus}3.48, +1.48]", "0"]
    assert by_loss["gift"][-2:] == ["\N{EN DASH}", "\N{EN DASH}"]


def test_a_condition_that_a_loss_diverges_in_is_counted_apart():
    found = two_optimizers()
    for row in found:
        if (row["loss"], row["optimizer"]) == ("soft_ce", "adamw"):
            row |= {"status": "diverged", "top1_last": None}
    table = regret.table(compared(found))
    assert table.header[-1] == "diverged"
    line = texts(table)[-1]
    assert [*line[:3], line[4], line[6], line[7], line[-1]] == [
        "soft_ce", "sgd", "0.40", "0.40", "1", "1", "1"
    ]  # fmt: skip


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
    assert by_name["kl, tuned"].is_tuned


def test_default_rates_and_those_of_untuned_runs_are_one_line():
    untuned = rows("gift", [40.0, 41.0], optimizer="lion")
    untuned += rows("kl", [35.0, 36.0], optimizer="lion")
    tuned = [
        *rows("gift", [40.0, 41.0]),
        *rows("kl", [30.0, 31.0]),
        *rows("kl", [40.0, 41.0], learning_rate=0.01),
    ]
    chosen = [choice("kl", 0.01), choice("gift", 0.001)]
    found = regret.regrets(compared([*untuned, *tuned], None, chosen))
    by_name = {one.label: sorted(one.points.values()) for one in found}
    assert by_name["kl"] == [5.0, 10.0] and by_name["kl, tuned"] == [0.0]
    assert len(by_name) == len(found)


def test_a_loss_that_lost_a_run_is_best_only_where_all_did():
    found = two_optimizers(SPREAD)
    (first, *_) = (r for r in found if (r["loss"], r["optimizer"]) == ("gift", "sgd"))
    first |= {"status": "diverged", "top1_last": None}  # the best under sgd
    by_loss = {one.loss: one for one in regret.regrets(compared(found, None))}
    condition = by_loss["soft_ce"].worst
    assert {one.best.loss for one in by_loss["kl"].behind.values()} == {"soft_ce", "kl"}
    assert by_loss["gift"].diverged == 1 and by_loss["kl"].diverged == 0
    assert by_loss["soft_ce"].behind[condition].best.loss == "kl"


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
    assert figure.data[0] == [*("loss", "rate", "condition", "regret", "low", "high")]
    assert ["gift", None, "adamw", 2.0] in [line[:4] for line in figure.data]
    assert len(figure.data) == 1 + 6
    assert "regret" in [table.name for table in report.tables]


def test_one_loss_at_two_kinds_of_rates_is_not_compared_with_itself():
    found, choices = [], []
    for name in ("sgd", "adamw"):
        found += rows("kl", [30.0, 31.0], optimizer=name)
        found += rows("kl", [42.0, 43.0], optimizer=name, learning_rate=0.01)
        choices.append(choice("kl", 0.01, optimizer=name))
    assert regret.regrets(compared(found, None, choices)) == []
