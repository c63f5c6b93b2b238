"""What soft labels are worth: none, one per image, one per view, some of the time.

    python -m experiments.hard_labels --config=configs/digits.py --workdir=DIR

Hard labels need no teacher; a fixed soft label is the teacher's for the image as it is.
HALD (arXiv 2512.15647) trains a third of the epochs with soft labels, and the rest, in
the middle, with smoothed hard ones; it is compared with as many soft labels without
hard epochs. All views are mixed by CutMix, as HALD's are; random real images and
RDED's.
"""

import ml_collections

from gift_jax import main


def study(config: ml_collections.ConfigDict) -> None:
    """Five kinds of labels, two losses for soft ones, two optimizers, three seeds."""
    soft = config.train.epochs - config.train.epochs * 2 // 3
    config.distilled.name = "random+rded"
    config.augment.mix = "cutmix"
    config.loss.name = "kl-t_squared=True+gift"
    config.optimizer.name = "adamw+muon"
    config.train.seeds = (0, 1, 2)
    config.variants = (
        "relabel.source=hard,loss=ce",
        "relabel.source=fixed",
        "",
        f"views={soft}",
        f"relabel.hard_epochs={config.train.epochs - soft},"
        "relabel.hard_loss=ce-smoothing=0.8",
    )


if __name__ == "__main__":
    main.run(study)
