"""RD3 (ICLR 2026), arXiv 2509.19743: one evaluation for all decoupled methods.

Epochs, batch size, optimizer, rate, zeta, the kinds of augmentation, the loss and the
one ResNet-18 teacher are the paper's. Temperature and crops are RDED's, whose
augmentation it takes; weight decay is not told and none.
"""

from typing import Any

from gift_jax.configs.protocols.base import LABELS_OF_VIEWS, Setting
from gift_jax.configs.protocols.rded import rded_views

# Zeta is 1 for ResNet-18, a whole cosine, and 2 for all others.
_SCHEDULES = {"resnet18": "cosine", "resnet18_modified": "cosine"}


def fields(setting: Setting) -> dict[str, Any]:
    """400 epochs in batches of 50, Adam at 1e-3."""
    schedule = setting.of_students("schedule", _SCHEDULES, "smoothed_cosine")
    is_large = setting.family == "imagenet"
    return {
        **LABELS_OF_VIEWS,
        **rded_views(setting),
        "teacher.name": "resnet18" if is_large else "resnet18_modified",
        "loss.name": "kl",
        "optimizer.name": f"adam-schedule={schedule}",
        "train.epochs": 400,
        "train.batch_size": setting.at_most_all(50),
    }
