"""Class-incremental learning from distilled images, with and without a look ahead.

    python -m experiments.continual --config=configs/digits.py --workdir=DIR

Classes arrive in steps. At every step a new student is trained on the distilled images
of all classes so far (GDumb) and measured on the test images of those classes, as DM
and FRePo do on CIFAR-100: 5 steps, 20 images per class, five orders of the classes,
`np.random.seed(k); np.random.permutation(100)`. Ten steps:
`--config.continual.steps=10`.

A teacher that is trained on all classes tells a student about classes that it has not
yet seen. So there are three: that teacher ("future"), its logits of the classes so far
("masked"), and one that is trained anew at every step on the real images of the classes
so far ("retrained", where teachers are trained here).
"""

import ml_collections

from gift_jax import main


def study(config: ml_collections.ConfigDict) -> None:
    """Two losses, two optimizers, five orders, three students each, five steps."""
    config.distilled.name = "random"
    config.distilled.ipc = 20
    config.loss.name = "kl-t_squared=True+gift"
    config.optimizer.name = "adamw+muon"
    config.train.seeds = (0, 1, 2)
    config.train.evaluators = "accuracy+task_accuracy"
    config.continual.steps = 5
    config.continual.teachers = "future+masked+retrained"


if __name__ == "__main__":
    main.run(study)
