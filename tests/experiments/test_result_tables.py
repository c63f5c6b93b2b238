"""Tables of the pages, and that the pages have those of the rows beside them."""

import numpy as np
import pytest
from scipy import stats

from experiments import result_tables
from gift_jax.report import reading
from tests.report.rows import DEFAULT_RATE, choice, rows, write_rows

FOLDERS = sorted(path.parent.name for path in result_tables.ROWS.glob("*/*.jsonl"))


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Two folders, with a loss or an optimizer that the other does not have."""
    monkeypatch.setattr(result_tables, "ROWS", tmp_path)
    monkeypatch.setattr(result_tables, "TITLES", {"long": "Long", "short": "Short"})
    write_rows(
        tmp_path / "short",
        [
            *rows("gift", (40.0, 41.0), optimizer="muon"),
            *rows("gift", (30.0, 31.0), optimizer="adamw"),
            *rows("kl-t_squared=True", (42.0, 44.0), optimizer="muon"),
            *rows("kl-t_squared=True", (29.0, 29.0), optimizer="adamw"),
            *rows("kl", (10.0,), optimizer="adamw"),
            *rows("kl", (20.5,), optimizer="muon"),
        ],
    )
    write_rows(
        tmp_path / "long",
        [
            *rows("gift", (50.0, 52.0), optimizer="adamw", epochs=99),
            *rows("gift", (60.0, 61.0), optimizer="sgd", epochs=99),
            *rows("kl", (52.0, 54.0), optimizer="adamw", epochs=99),
            *rows("kl", (59.0, 60.5), optimizer="sgd", epochs=99),
            *rows(
                "standardized_gift-correct=True",
                (60.0, 62.0),
                optimizer="adamw",
                epochs=99,
            ),
        ],
    )
    return tmp_path


def cells(table):
    lines = [line for line in table.splitlines() if not line.startswith("|-")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_accuracies_have_deviations_and_the_regret_to_the_best(measured):
    assert cells(result_tables.accuracies("short")) == [
        ["loss", "AdamW", "Muon", "largest regret", "mean"],
        ["`gift`", "30.50 ± 0.71", "40.50 ± 0.71", "2.50", "1.25"],
        ["`kl` x T^2", "29.00 ± 0.00", "43.00 ± 1.41", "1.50", "0.75"],
        [
            *("`kl` (official: T = 20, no T^2)", "10.00 (n = 1)", "20.50 (n = 1)"),
            *("22.50", "21.50"),
        ],
    ]


def test_a_variant_is_shown_but_others_are_not_behind_it(measured):
    assert cells(result_tables.accuracies("long"))[1:] == [
        ["`gift`", "60.50 ± 0.71", "51.00 ± 1.41", "2.00", "1.00"],
        [
            *("`kl` (official: T = 20, no T^2)", "59.75 ± 1.06", "53.00 ± 1.41"),
            *("0.75", "0.38"),
        ],
        [
            "`standardized_gift-correct=True`",
            "\N{EN DASH}",
            "61.00 ± 1.41",
            *["\N{EN DASH}"] * 2,
        ],
    ]


def test_tuned_losses_stand_beside_their_defaults(measured, monkeypatch):
    monkeypatch.setattr(result_tables, "TITLES", {"tuned": "Tuned"})
    own = 0.01
    write_rows(
        measured / "tuned",
        [
            *rows("gift", (30.0, 31.0)),
            *rows("gift", (33.0, 34.0), learning_rate=own),
            *rows("kl", (35.0, 36.0)),
            *rows("gift", (50.0, 51.0), optimizer="muon"),
            *rows("kl", (48.0, 49.5), optimizer="muon"),
        ],
        [
            *(choice("gift", own), choice("kl", DEFAULT_RATE)),
            *(choice(loss, DEFAULT_RATE, optimizer="muon") for loss in ("gift", "kl")),
        ],
    )
    assert cells(result_tables.tuned("tuned")) == [
        [
            *("loss", "AdamW", "tuned", "Muon", "tuned"),
            *("largest regret", "tuned"),
        ],
        [
            *("`gift`", "30.50 ± 0.71", "0.01: 33.50 ± 0.71"),
            *("50.50 ± 0.71", "0.001: 50.50 ± 0.71", "5.0", "2.0"),
        ],
        [
            *("`kl` (official: T = 20, no T^2)", "35.50 ± 0.71", "0.001: 35.50 ± 0.71"),
            *("48.75 ± 1.06", "0.001: 48.75 ± 1.06", "1.8", "1.8"),
        ],
    ]
    assert cells(result_tables.regrets("gift"))[1] == ["Tuned", "2.0"]
    assert cells(result_tables.leads("gift", "kl"))[1] == [
        *("Tuned", "\N{EN DASH}", "\N{MINUS SIGN}2.0", interval([2.0, 1.5])),
    ]


def test_calibration_is_that_of_the_last_epoch(measured):
    names = ("ece", "scaled_ece", "nll", "scaled_nll", "calibration_temperature")

    def under(optimizer, *values):
        found = dict(zip((f"{name}_last" for name in names), values, strict=True))
        return rows("gift", (1.0,), optimizer=optimizer, **found)

    write_rows(
        measured / "calibrated",
        [
            *under("sgd", 0.25, 0.015, 2.0, 1.5, 0.5),
            *under("adamw", 0.2, 0.016, 2.1, 1.4, 1.5),
            *under("muon", 0.1, None, 1.0, 0.5, 1.0),
            *under("lion", 0.3, 0.3, 3.0, 3.0, 3.0),
        ],
    )
    assert cells(result_tables.calibration("calibrated")) == [
        [
            *("loss", "SGD: ECE", "NLL", "T", "AdamW: ECE", "NLL", "T"),
            *("Muon: ECE", "NLL", "T"),
        ],
        [
            *("`gift`", "0.25 / 0.01", "2.00 / 1.50", "0.50"),
            *("0.20 / 0.02", "2.10 / 1.40", "1.50"),
            *("0.10 / \N{EN DASH}", "1.00 / 0.50", "1.00"),
        ],
    ]


def test_the_largest_regrets_stand_by_folder_in_the_order_of_the_titles(measured):
    assert cells(result_tables.regrets("gift", "kl-t_squared=True")) == [
        ["largest regret", "`gift`", "`kl` x T^2"],
        ["Long", "2.0", "\N{EN DASH}"],
        ["Short", "2.5", "1.5"],
    ]


def interval(differences):
    """What a paired difference of two seeds is written as, by the formula."""
    mean, sd = np.mean(differences), np.std(differences, ddof=1)
    half = stats.t.ppf(0.975, len(differences) - 1) * sd / len(differences) ** 0.5
    text = f"{mean:.1f} [{mean - half:.1f}, {mean + half:.1f}]"
    return text.replace("-", "\N{MINUS SIGN}")


def test_leads_are_paired_over_seeds(measured):
    assert cells(result_tables.leads("gift", "kl")) == [
        ["`gift` minus `kl` (official: T = 20, no T^2)", "SGD", "AdamW", "Muon"],
        # A spread of zero is no estimate of it; one pair has none.
        ["Long", interval([1.0, 0.5]), "\N{MINUS SIGN}2.0", "\N{EN DASH}"],
        ["Short", "\N{EN DASH}", "20.0", "19.5"],
    ]
    # A folder without both is left out.
    assert len(cells(result_tables.leads("gift", "kl-t_squared=True"))) == 2


def test_optimizers_are_compared_loss_by_loss(measured):
    assert cells(result_tables.optimizers("muon", "adamw")) == [
        [
            *("Muon minus AdamW", "`gift`", "`kl` (official: T = 20, no T^2)"),
            "`kl` x T^2",
        ],
        ["Short", "10.0", "10.5", interval([13.0, 15.0])],
    ]


def test_only_what_stands_between_marks_is_written(measured):
    page = (
        "a\n<!-- regrets: gift -->\nold\n<!-- end -->\nb\n<!-- test -->\n<!-- end -->"
    )
    table = result_tables.regrets("gift")
    filled = result_tables.filled_in(page)
    assert filled == page.replace("old", table)
    assert result_tables.filled_in(filled) == filled


@pytest.mark.parametrize("page", result_tables.PAGES, ids=lambda path: path.name)
def test_the_pages_have_the_tables_of_the_rows(page):
    assert page.read_text() == result_tables.filled_in(page.read_text()), (
        "run python -m experiments.result_tables"
    )


@pytest.mark.parametrize("folder", FOLDERS)
def test_rows_are_whole_and_of_one_condition_but_for_the_optimizer(folder):
    found, _, unreadable = reading.read_results([result_tables.ROWS / folder])
    assert not unreadable
    assert folder in result_tables.TITLES
    for name in ("dataset", "trained_on", "teacher", "student", "epochs"):
        assert len({row[name] for row in found}) == 1, name
