"""The paper's tables: its losses and this project's, at its full protocol.

    python -m experiments.paper_tables --config=configs/cifar100.py --workdir=DIR

1,000 epochs on RDED's images, three seeds, the default learning rate and the tuned one.
That is for accelerators; where one has no network, carry there what `gift_jax.pack`
writes:

    python -m gift_jax.pack --workdir=DIR --out=PACK --config.tuning.enabled=True \\
        --config=configs/tiny_imagenet.py:data_dir=tiny-imagenet-200
    python -m experiments.paper_tables --config=configs/tiny_imagenet.py \\
        --flagfile=PACK/config.flags --workdir=DIR

`--config.train.students_at_once=8` trains seeds and rates under one vmap, which may be
faster there. Every finished row is in the results at once, and the same command resumes
after it was stopped.
"""

import ml_collections

from gift_jax import main

LOSSES = (
    "kl",
    "kl-t_squared=True",
    "soft_ce",
    "mse_ce",
    "gift",
    "standardized_gift",
)


def study(config: ml_collections.ConfigDict) -> None:
    """Six losses, three optimizers, three seeds, default and tuned rates."""
    config.distilled.name = "rded"
    config.loss.name = "+".join(LOSSES)
    config.optimizer.name = "sgd+adamw+muon"
    config.train.seeds = (0, 1, 2)
    config.tuning.enabled = True


if __name__ == "__main__":
    main.run(study)
