"""The baseline: real training images drawn at random."""

import numpy as np

from gift_jax.data import real
from gift_jax.distilled.dataset import DistilledDataset, Metadata


def make_random(dataset: real.RealDataset, *, ipc: int, seed: int) -> DistilledDataset:
    """Draws `ipc` training images of each class, without replacement.

    With teacher labels this is a strong baseline ("A Label is Worth a Thousand
    Images", https://arxiv.org/abs/2406.10485). With one seed, the images for a
    smaller `ipc` are among those for a larger one.

    Args:
      dataset: Where to draw from.
      ipc: Images per class, at least 1.
      seed: Seed of the draw.

    Returns:
      num_classes * ipc images after the validation transform, class by class.

    Raises:
      ValueError: a class has fewer than `ipc` images.
    """
    info, labels = dataset.info, dataset.train.labels
    chosen = []
    for label in range(info.num_classes):
        members = np.flatnonzero(labels == label)
        if not 1 <= ipc <= len(members):
            raise ValueError(
                f"ipc is {ipc}, but class {label} of {info.name} has {len(members)} "
                "training images"
            )
        chosen.append(np.random.default_rng([seed, label]).permutation(members)[:ipc])
    images = dataset.train.images(np.concatenate(chosen))
    return DistilledDataset(
        images=images.astype(np.float32) / 255,
        labels=np.repeat(np.arange(info.num_classes), ipc),
        preprocess=info.normalization,
        metadata=Metadata(
            dataset=info.name,
            num_classes=info.num_classes,
            method="random",
            source=f"random: ipc {ipc}, seed {seed}, split {info.train_split}",
        ),
    )
