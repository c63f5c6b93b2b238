"""How much the loss for the soft labels matters.

    python -m experiments.loss_sensitivity --config=configs/digits.py --workdir=DIR

The eight losses of the paper, and KL multiplied by T^2, on one distilled dataset with
one set of soft labels, under the official recipe (AdamW at 1e-3), and under Muon.
"""

import ml_collections

from gift_jax import main

LOSSES = (
    *("gift", "cosine", "ce", "soft_ce", "kl", "kl-t_squared=True"),
    *("mse", "mse_ce", "soft_ce_ce"),
)


def study(config: ml_collections.ConfigDict) -> None:
    """Nine losses, two optimizers, three seeds."""
    config.distilled.name = "rded"
    config.loss.name = "+".join(LOSSES)
    config.optimizer.name = "adamw+muon"
    config.train.seeds = (0, 1, 2)


if __name__ == "__main__":
    main.run(study)
