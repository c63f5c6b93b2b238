"""Where a loss that does well elsewhere may fail: one setting at a time is changed.

    python -m experiments.falsification --config=configs/digits.py --workdir=DIR

Longer training, one image per class, small batches, weight decay 0 and 0.005, mixed
views, few views, bfloat16, epochs of hard labels between soft ones; and other teachers:
one that was trained on labels of which 40% are wrong, a brief one, a small and a large
one. A published teacher is replaced by those, and published images stay as they are.
"""

import ml_collections

from gift_jax import main

_OWN = "teacher.checkpoint="


def variants(epochs: int) -> tuple[str, ...]:
    """The config as it is, and with one change each.

    Args:
      epochs: Epochs of the students.
    """
    return (
        *("", f"train.epochs={3 * epochs}", "ipc=1", "train.batch_size=10"),
        *("optimizer.weight_decay=0.0", "optimizer.weight_decay=0.005"),
        *("augment.mix=mixup", "augment.mix=cutmix"),
        f"views={max(1, epochs // 10)}",
        "student.dtype=bfloat16",
        f"relabel.hard_epochs={epochs // 3}",
        f"{_OWN},teacher.label_noise=0.4",
        f"{_OWN},teacher.epochs=1",
        f"{_OWN},teacher=conv2-width=16",
        f"{_OWN},teacher=resnet20",
    )


def study(config: ml_collections.ConfigDict) -> None:
    """Fifteen settings, five losses, three optimizers, three seeds."""
    config.distilled.name = "rded"
    config.loss.name = (
        "kl-t_squared=True+soft_ce+gift+standardized_gift+"
        "standardized_gift-length_weight=0.0"
    )
    config.optimizer.name = "sgd+adamw+muon"
    config.train.seeds = (0, 1, 2)
    # Published images are of one IPC.
    left_out = {"ipc=1"} if config.distilled.path else set()
    found = variants(config.train.epochs)
    config.variants = tuple(one for one in found if one not in left_out)


if __name__ == "__main__":
    main.run(study)
