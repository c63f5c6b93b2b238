"""Whether one loss serves every optimizer, without tuning.

    python -m experiments.universal_loss --config=configs/digits.py --workdir=DIR

The losses of the paper that do well somewhere, those of knowledge distillation, and
`standardized_gift` with and without its second term, under every optimizer at its
default learning rate; `--config.tuning.enabled=True` adds the tuned ones, and
`--config.train.evaluators=accuracy+diagnostics` calibration. Read in the report how far
a loss stays behind the best one of each optimizer. Several students are joined by "+"
(`--config.student.name=conv3-width=32+conv3-width=128`), IPCs are variants; datasets
have work directories of their own, and one regret over all of them:

    python -m gift_jax.report DIR DIR2 --out=DIR3 --baseline=gift
"""

import ml_collections

from gift_jax import main

LOSSES = (
    "gift",
    "kl",
    "kl-t_squared=True",
    "soft_ce",
    "mse_ce",
    "standardized_gift",
    "standardized_gift-length_weight=0.0",
    "lskd",
    "normkd",
    "spherical_kd",
    "dkd",
    "nkd",
    "wttm",
    "dist",
    "jsd",
    "poly1",
)
OPTIMIZERS = "sgd+adam+adamw+rmsprop+lamb+lion+adafactor+muon+schedule_free_adamw"
OPTIMIZERS += "+prodigy"


def study(config: ml_collections.ConfigDict) -> None:
    """Sixteen losses, ten optimizers, three seeds."""
    config.distilled.name = "rded"
    config.loss.name = "+".join(LOSSES)
    config.optimizer.name = OPTIMIZERS
    config.train.seeds = (0, 1, 2)


if __name__ == "__main__":
    main.run(study)
