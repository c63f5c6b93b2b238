"""What accuracy the bytes of the soft labels buy.

    python -m experiments.soft_label_budget --config=configs/digits.py --workdir=DIR

From one stored view of every image to one for every epoch, as float16; and all of them
as int8, and as the largest logits with the mean of the others.
"""

import ml_collections

from gift_jax import main


def study(config: ml_collections.ConfigDict) -> None:
    """A ladder of views, four formats, two losses, three seeds."""
    epochs = config.train.epochs
    ladder = sorted({max(1, epochs // part) for part in (1000, 100, 30, 10, 3, 1)})
    config.distilled.name = "rded"
    config.loss.name = "kl+gift"
    config.train.seeds = (0, 1, 2)
    config.variants = (
        *(f"views={views}" for views in ladder),
        *(f"relabel.format={name}" for name in ("int8", "top5", "top2")),
    )


if __name__ == "__main__":
    main.run(study)
