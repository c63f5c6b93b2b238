"""What accuracy the bytes of the soft labels buy.

    python -m experiments.soft_label_budget --config=configs/digits.py --workdir=DIR

From one stored view of every image to one for every epoch, as float16; all of them as
int8, and as the largest logits with the mean of the others; and a tenth of the views in
each of these formats. Under KL, KL multiplied by T^2, soft CE and GIFT, with AdamW and
Muon: does a cosine survive a compression that KL does not?
"""

import ml_collections

from gift_jax import main
from gift_jax.data import info


def study(config: ml_collections.ConfigDict) -> None:
    """A ladder of views, formats of all and of a tenth, four losses, two optimizers."""
    epochs = config.train.epochs
    ladder = sorted({max(1, epochs // part) for part in (1000, 100, 30, 10, 3, 1)})
    config.distilled.name = "rded"
    config.loss.name = "kl+kl-t_squared=True+soft_ce+gift"
    config.optimizer.name = "adamw+muon"
    config.train.seeds = (0, 1, 2)
    formats = _formats(config.dataset.name)
    config.variants = (
        *(f"views={views}" for views in ladder),
        *(f"relabel.format={name}" for name in formats),
        *(f"views={max(1, epochs // 10)},relabel.format={name}" for name in formats),
    )


def _formats(dataset: str) -> list[str]:
    """Formats that take fewer bytes than float16 each, and than the one before.

    A logit that top-k keeps takes four bytes: a quarter of them are as large as int8.
    """
    known = info.DATASETS.get(dataset)
    parts = (5, 10, 20, 100) if known else ()
    kept = {known.num_classes // part for part in parts} - {0}
    return ["int8", *(f"top{k}" for k in sorted(kept, reverse=True))]


if __name__ == "__main__":
    main.run(study)
