"""Statistics of other projects, as their codes have them."""

import dataclasses

from gift_jax.data import info
from gift_jax.distilled import standardised

# `get_dataset` of https://github.com/VICO-UoE/DatasetCondensation, `utils.py`.
DC_CIFAR100 = ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762))
# `losses_benchmark.py` and `data/utils` of https://github.com/LINs-lab/GIFT.
GIFT_CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))


def test_both_have_the_same_but_for_cifar_100():
    for entry in info.DATASETS.values():
        gift, dc = standardised.of_gift(entry), standardised.of_dc(entry)
        assert gift == entry.normalization
        assert (dc == gift) == (entry.name != "cifar100")
    cifar100 = info.DATASETS["cifar100"]
    assert dataclasses.astuple(standardised.of_gift(cifar100)) == GIFT_CIFAR
    assert dataclasses.astuple(standardised.of_dc(cifar100)) == DC_CIFAR100


def test_a_config_has_no_say_in_it_but_for_unknown_datasets():
    given = info.IMAGENET
    known = dataclasses.replace(info.DATASETS["cifar10"], normalization=given)
    own = dataclasses.replace(known, name="folder:mine")
    for convention in (standardised.of_gift, standardised.of_dc):
        assert convention(known) == info.CIFAR
        assert convention(own) == given
