"""The table that ends a job."""

from collections.abc import Sequence
from typing import Any

from gift_jax.pipeline.results import CONTINUAL, Row
from gift_jax.report.markup import markdown_table

# `_IF_SEVERAL` are shown only where they tell rows apart.
_COLUMNS = (
    *CONTINUAL,
    "dataset", "protocol", "distill", "ipc", "teacher", "data_seed", "soft_labels",
    "label_format", "views", "augment", "student", "loss", "optimizer",
    "learning_rate", "epochs", "batch_size", "seed", "top1_last", "top1_best",
    "top5_last", "train_seconds", "status",
)  # fmt: skip
_IF_SEVERAL = (
    *CONTINUAL,
    "dataset", "protocol", "teacher", "data_seed", "soft_labels", "label_format",
    "views", "augment", "learning_rate", "epochs", "batch_size",
)  # fmt: skip
_HEADINGS = {
    "distill": "distilled", "data_seed": "data seed", "soft_labels": "labels",
    "label_format": "format", "batch_size": "batch",
    "continual_teacher": "labels of", "continual_order": "order",
    "continual_steps": "steps", "continual_step": "step",
    "learning_rate": "rate", "top1_last": "top-1 last", "top1_best": "top-1 best",
    "top5_last": "top-5 last", "train_seconds": "seconds",
}  # fmt: skip


def summary_table(rows: Sequence[Row]) -> str:
    """A Markdown table of runs; accuracies in percent."""
    shown = [
        name
        for name in _COLUMNS
        if name not in _IF_SEVERAL or len({row.get(name) for row in rows}) > 1
    ]
    cells = [[_HEADINGS.get(name, name) for name in shown]]
    cells += [[_format(name, row.get(name)) for name in shown] for row in rows]
    return markdown_table(cells, text_columns=len(shown))


def _format(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name == "learning_rate":
        return f"{value:g}"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
