"""Which parts of GIFT do what.

    python -m experiments.ablation --config=configs/digits.py --workdir=DIR

The weight of the hard label (gamma), its smoothing (alpha), the additive form of the
official code against the paper's convex one, the refinement without the cosine
(`kl-refine=True`), the cosine without the refinement (`cosine`), neither (`kl`), and
the temperature of KL. Under SGD, AdamW and Muon, as what matters differs between them.
"""

import ml_collections

from gift_jax import main

LOSSES = (
    "gift",
    *(f"gift-gamma={gamma}" for gamma in (0.02, 0.05, 0.2, 0.5, 1.0)),
    *(f"gift-alpha={alpha}" for alpha in (0.0, 0.2, 0.5)),
    "gift-mode=convex",
    "cosine",
    "kl",
    "kl-refine=True",
    "kl-t_squared=True",
    "kl-t_squared=True-refine=True",
    *(f"kl-t_squared=True-temperature={t}" for t in (1.0, 4.0)),
)


def study(config: ml_collections.ConfigDict) -> None:
    """One variation at a time, three optimizers, three seeds."""
    config.distilled.name = "rded"
    config.loss.name = "+".join(LOSSES)
    config.optimizer.name = "sgd+adamw+muon"
    config.train.seeds = (0, 1, 2)


if __name__ == "__main__":
    main.run(study)
