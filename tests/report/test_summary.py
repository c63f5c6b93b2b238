"""The table that ends a job."""

from gift_jax.report.summary import summary_table
from tests.pipeline.test_results import ROW, row


def test_the_table_is_aligned_markdown():
    diverged = row(
        "b",
        loss="kl-t_squared=True",
        optimizer="sgd",
        top1_last=None,
        top1_best=None,
        top5_last=None,
        train_seconds=3.0,
        status="diverged",
    )
    head, rule, *body = summary_table([ROW, diverged]).splitlines()
    assert [cell.strip() for cell in head.split("|")[1:-1]] == [
        "distilled",
        "ipc",
        "student",
        "loss",
        "optimizer",
        "seed",
        "top-1 last",
        "top-1 best",
        "top-5 last",
        "seconds",
        "status",
    ]
    assert [" ".join(line.replace("|", " ").split()) for line in body] == [
        "rded 10 conv3 gift adamw 0 56.79 57.00 94.44 123.46 finished",
        "rded 10 conv3 kl-t_squared=True sgd 0 - - - 3.00 diverged",
    ]
    assert set(rule) == {"|", "-"}
    lines = [head, rule, *body]
    bars = [[i for i, letter in enumerate(line) if letter == "|"] for line in lines]
    assert bars == [bars[0]] * 4


def test_the_table_of_no_runs_is_its_head():
    head, rule = summary_table([]).splitlines()
    assert head.startswith("| distilled | ipc | student ")
    assert len(head) == len(rule)


def test_what_a_row_lacks_is_a_dash_in_the_table():
    last = summary_table([{"distill": "random"}]).splitlines()[-1]
    assert last.split() == ["|", "random", *["|", "-"] * 10, "|"]


def test_the_table_shows_what_else_tells_rows_apart():
    rows = [row("a", learning_rate=1e-4, views=5), row("b", learning_rate=0.3, views=5)]
    head, _, *body = summary_table(rows).splitlines()
    assert "rate" in head.split() and "views" not in head.split()
    assert ["0.0001" in body[0].split(), "0.3" in body[1].split()] == [True, True]


def test_kinds_of_labels_and_batch_sizes_tell_rows_apart():
    rows = [row("a"), row("b", soft_labels="fixed"), row("c", batch_size=10)]
    head, _, *body = summary_table(rows).splitlines()
    assert [cell.strip() for cell in head.split("|")[1:6]] == [
        *("distilled", "ipc", "labels", "student", "loss")
    ]
    assert "batch" in head.split()
    assert len(set(body)) == 3
