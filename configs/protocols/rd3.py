"""RD3 (ICLR 2026), arXiv 2509.19743: one evaluation for all decoupled methods.

Epochs, batch size, optimizer, rate, zeta, the kinds of augmentation, the loss and the
one ResNet-18 teacher are the paper's. Temperature and crops are RDED's, whose
augmentation it takes; weight decay is not stated, and is none.
"""

from typing import Any

from gift_jax.configs.protocols.base import LABELS_OF_VIEWS, Setting
from gift_jax.configs.protocols.rded import rded_views


def fields(setting: Setting) -> dict[str, Any]:
    """400 epochs in batches of 50, Adam at 1e-3."""
    # Zeta is 1 for ResNets, a whole cosine, and 2 for all others.
    resnets = [name for name in setting.students if name.startswith("resnet")]
    schedules = dict.fromkeys(resnets, "cosine")
    schedule = setting.of_students("schedule", schedules, "smoothed_cosine")
    return {
        **LABELS_OF_VIEWS,
        **rded_views(setting),
        # With the stem for the size of the images.
        "teacher.name": "resnet18" if setting.side > 64 else "resnet18_modified",
        "loss.name": "kl",
        "optimizer.name": f"adam-schedule={schedule}",
        "train.epochs": 400,
        "train.batch_size": setting.at_most_all(50),
    }
