"""No paper's: what trained the published images best here, under the official views.

Muon (https://github.com/KellerJordan/Muon) at its default rate is ahead of AdamW with
every loss that was tried, by more than any of them is ahead of another, and
`standardized_gift` with a little of its second term is the best under it where
trainings are long. Measured on CIFAR-10 (docs/results.md); elsewhere it is a guess.
"""

from typing import Any

from gift_jax.configs.protocols import gift
from gift_jax.configs.protocols.base import Setting


def fields(setting: Setting) -> dict[str, Any]:
    """Those of `gift`, with another optimizer and loss."""
    return {
        **gift.fields(setting),
        "optimizer.name": "muon",
        "loss.name": "standardized_gift-length_weight=0.3",
    }
