"""Training students on distilled datasets with refined soft labels (GIFT) in JAX.

The names below are the library; each is imported when it is first used.

    losses, labels    the method: `losses.get_loss`, `labels.refine_labels`
    read_distilled    a published distilled dataset, from a file or folder
    load_teacher      a teacher from a PyTorch checkpoint
    relabel           the teacher's logits of all augmented views
    fit               a student's training on arrays
    evaluate          accuracies of a network on arrays
    run_job           what the command does with a config and a work directory
    plot              the accuracies in work directories, as a figure
    show_report       their whole report, inside a notebook
"""

import pkgutil
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "evaluate": "gift_jax.evaluators.accuracy:evaluate",
    "fit": "gift_jax.train.fit:fit",
    "labels": "gift_jax.labels",
    "load_teacher": "gift_jax.teachers.loading:load_teacher",
    "losses": "gift_jax.losses",
    "plot": "gift_jax.report.build:plot",
    "read_distilled": "gift_jax.distilled:read_distilled",
    "relabel": "gift_jax.soft_labels.relabel:relabel_views",
    "run_job": "gift_jax.pipeline.job:run_job",
    "show_report": "gift_jax.report.notebook:show_report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gift_jax' has no attribute {name!r}")
    return pkgutil.resolve_name(_HOME[name])


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
