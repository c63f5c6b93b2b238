"""Images distilled with one network, and other networks trained on them.

    python -m experiments.cross_architecture --config=configs/cifar10.py --workdir=DIR
    python -m gift_jax.report DIR

Every network is a teacher, whose images and soft labels all networks are trained on, as
in the tables of RDED and GIFT: the network that distils is the one that labels. The
report has the matrix of accuracies for each loss, with the drop from its diagonal.
Images of one network only: `--config.teacher.name=resnet18_modified`; published ones
with `--config.distilled.path` and the teacher that they were made with.

    --config=configs/digits.py --config.teacher.name=conv3+vit_t_4 \\
        --config.student.name=conv3+vit_t_4

are networks that take the 8 pixels of the digits.
"""

import ml_collections

from gift_jax import main

NETWORKS = (
    *("conv3", "resnet18_modified", "vgg11_bn-head=linear"),
    *("mobilenet_v2_modified", "vit_t_4"),
)


def study(config: ml_collections.ConfigDict) -> None:
    """Five networks as teachers and as students, two losses and optimizers."""
    config.distilled.name = "rded"
    config.teacher.name = "+".join(NETWORKS)
    config.student.name = "+".join(NETWORKS)
    config.loss.name = "kl-t_squared=True+gift"
    config.optimizer.name = "adamw+muon"
    config.train.seeds = (0, 1, 2)


if __name__ == "__main__":
    main.run(study)
