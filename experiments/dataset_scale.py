"""How the losses compare as the distilled dataset grows.

    python -m experiments.dataset_scale --config=configs/digits.py --workdir=DIR

1, 10 and 50 images per class, under AdamW and Muon. For other datasets run it with
their configs, each in a work directory of its own, and report on all of them at once:
`python -m gift_jax.report DIR DIR2 --out=DIR3`.
"""

import ml_collections

from gift_jax import main


def study(config: ml_collections.ConfigDict) -> None:
    """Three sizes, three losses, two optimizers, three seeds."""
    config.distilled.name = "rded"
    config.variants = ("ipc=1", "ipc=10", "ipc=50")
    config.loss.name = "kl+kl-t_squared=True+gift"
    config.optimizer.name = "adamw+muon"
    config.train.seeds = (0, 1, 2)


if __name__ == "__main__":
    main.run(study)
