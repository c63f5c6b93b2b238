"""No paper's: what trained students best here, under the official views.

Muon (https://github.com/KellerJordan/Muon) at its default rate is ahead of AdamW with
every loss that was tried, mostly by 4 to 15 points, and `standardized_gift` is within
a point of the best loss under it where images are augmented. Measured with soft labels
on CIFAR-10 and CIFAR-100 (docs/results.md); a guess elsewhere.
"""

from typing import Any

from gift_jax.configs.protocols import gift
from gift_jax.configs.protocols.base import Setting


def fields(setting: Setting) -> dict[str, Any]:
    """The fields of `gift`, with another optimizer and loss."""
    return {
        **gift.fields(setting),
        "optimizer.name": "muon",
        "loss.name": "standardized_gift",
    }
