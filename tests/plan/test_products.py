"""Sizes of products against counts by hand, and what they are known by."""

import pytest

from gift_jax import specs
from gift_jax.configs import cifar10, digits
from gift_jax.plan import cost_model
from gift_jax.plan.products import products
from gift_jax.plan.workload import Workload
from tests.plan.planned import work


def sizes(config):
    found = {}
    for product in products(work(config)):
        found[product.name] = found.get(product.name, 0) + product.size()
    return found


def keys(config, job=0):
    spec = specs.expand(config)[job]
    made = products(Workload(spec, cost_model.machine("v4-8")))
    return {product.name: product.key for product in made}


# --- Sizes --------------------------------------------------------------------------


def test_experts_are_a_row_of_weights_before_and_after_every_epoch():
    """The official ones: 100 of 100 epochs, ConvNet-3 with 320,010 weights."""
    found = sizes(cifar10.get_config("distill=datm,ipc=10,relabel.source=dataset"))
    assert found["experts"] == 100 * 101 * 320_010 * 4
    assert found["distilled images"] == 100 * 32 * 32 * 3 * 4  # float32
    assert "the teacher" not in found


def test_statistics_are_moments_of_channels_and_patches_of_batches_and_classes():
    config = cifar10.get_config("distill=gvbsm,ipc=2,teacher=conv1")
    config.teacher.update(width=16, also=("conv1-width=8",))
    found = sizes(config)
    # A convolution is fed 3 channels in 8x8 patches of 4x4 pixels, batch norm 16 or 8
    # channels: means and variances of all images and of ten classes.
    of_networks = [2 * (1 + 10) * (3 + 64 + width) for width in (16, 8)]
    assert found["statistics of real images"] == 4 * sum(of_networks)
    # A kernel, biases, and four numbers of batch norm; a classifier of 16x16 features.
    weights = [(27 + 5) * width + (256 * width + 1) * 10 for width in (16, 8)]
    assert found["the teacher"] == 4 * sum(weights)
    assert found["distilled images"] == 20 * 32 * 32 * 3


@pytest.mark.parametrize(
    ("every", "checkpoint_every", "kept"),
    [
        (20, 0, 3),  # the two latest, and the best
        (80, 0, 1),
        (50, 0, 2),
        (80, 30, 3),  # after 30, 60 and 80 epochs
    ],
)
def test_checkpoints_are_the_latest_and_the_best(every, checkpoint_every, kept):
    config = digits.get_config("distill=random,student=conv1,epochs=80,loss=gift")
    config.student.width = 64
    config.optimizer.name = "adamw"
    config.train.update(
        seeds=(0, 1), eval_every=every, checkpoint_every=checkpoint_every
    )
    params = (9 + 3) * 64 + (4 * 4 * 64 + 1) * 10
    # Weights and two moments of AdamW, and the statistics of batch norm.
    expected = 2 * kept * 4 * (3 * params + 2 * 64)
    assert sizes(config)["checkpoints of students"] == pytest.approx(expected, rel=1e-3)


def test_students_of_tuning_are_kept_once_each():
    config = digits.get_config("distill=random,student=conv1,epochs=80,loss=gift")
    config.optimizer.name = "adamw"
    one = sizes(config)["checkpoints of students"] / 3
    config.tuning.enabled = True
    # The default rate and the chosen one, and five that are measured at the end only.
    assert sizes(config)["checkpoints of students"] == (3 + 3 + 5) * one


# --- What they are known by ---------------------------------------------------------


def test_variants_share_what_does_not_depend_on_them():
    config = digits.get_config("distill=rded,loss=kl")
    config.variants = ("", "loss=gift", "relabel.views=7", "ipc=2", "seed=1")
    first, *others = (keys(config, number) for number in range(5))
    same = [{name for name in first if first[name] == other[name]} for other in others]
    of_images = {"the teacher", "distilled images"}
    labels = {"soft labels in float16"}
    assert same == [of_images | labels, of_images, {"the teacher"}, set()]


def test_experts_are_shared_by_all_ipcs_and_need_no_teacher():
    config = digits.get_config("distill=datm,ipc=1,loss=soft_ce,relabel.source=dataset")
    config.variants = ("", "ipc=2", "distilled.datm.width=32")
    first, second, third = (keys(config, number) for number in range(3))
    assert first["experts"] == second["experts"] != third["experts"]
    assert first["distilled images"] != second["distilled images"]
    assert "the teacher" not in first


def test_epochs_change_soft_labels_but_not_fixed_ones():
    config = digits.get_config("distill=random,loss=kl")
    config.variants = ("epochs=20", "epochs=30")
    name = "soft labels in float16"
    assert keys(config, 0)[name] != keys(config, 1)[name]
    config.relabel.source = "fixed"
    assert keys(config, 0)[name] == keys(config, 1)[name]


def test_labels_that_are_made_meanwhile_are_no_product():
    config = digits.get_config("distill=random,relabel.source=online,loss=kl")
    made = list(products(work(config)))
    assert [product.name for product in made][-2:] == [
        "distilled images",
        "checkpoints of students",
    ]
    assert next(iter(made[-1].stages())).name == "relabelling"
