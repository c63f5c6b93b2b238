"""Whether a bound on mutual information rises with accuracy, as the paper argues.

    python -m experiments.theory --config=configs/digits.py --workdir=DIR
    python -m gift_jax.report DIR

The paper derives its cosine from a lower bound, of InfoNCE's kind, on the mutual
information between a student's outputs and the labels. Here the bound is measured on
the test split, with its two parts, for the losses of the paper and others under four
optimizers; the report has its rank correlation with accuracy over all of them, with
an interval, and the same for calibration and lengths of logits.
"""

import ml_collections

from gift_jax import main

LOSSES = (
    *("gift", "cosine", "ce", "soft_ce", "kl", "kl-t_squared=True", "mse", "mse_ce"),
    *("soft_ce_ce", "standardized_gift", "lskd", "dkd"),
)


def study(config: ml_collections.ConfigDict) -> None:
    """Twelve losses, four optimizers, three seeds."""
    config.distilled.name = "rded"
    config.loss.name = "+".join(LOSSES)
    config.optimizer.name = "sgd+adam+adamw+muon"
    config.train.seeds = (0, 1, 2)
    config.train.evaluators = "accuracy+diagnostics"
    config.train.eval_every = max(config.train.epochs // 10, 1)


if __name__ == "__main__":
    main.run(study)
