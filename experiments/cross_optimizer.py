"""Whether a loss keeps its accuracy when the optimizer changes.

    python -m experiments.cross_optimizer --config=configs/digits.py --workdir=DIR

KL as in the official code, KL multiplied by T^2, and GIFT, under SGD, Adam, AdamW, Muon
and Prodigy, each at its default learning rate and at one chosen on images held out of
the train split. `--config.tuning.enabled=False` leaves the second out. Prodigy finds
its rate by itself: what a loss still loses there was not for want of a better one. Any
loss and optimizer: `--config.loss.name=... --config.optimizer.name=...
--config.train.seeds=...`.
"""

import ml_collections

from gift_jax import main


def study(config: ml_collections.ConfigDict) -> None:
    """Three losses, five optimizers, three seeds."""
    config.distilled.name = "rded"
    config.loss.name = "kl+kl-t_squared=True+gift"
    config.optimizer.name = "sgd+adam+adamw+muon+prodigy"
    config.train.seeds = (0, 1, 2)
    config.tuning.enabled = True


if __name__ == "__main__":
    main.run(study)
