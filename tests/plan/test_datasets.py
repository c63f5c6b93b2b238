"""Sizes of real datasets."""

import pytest

from gift_jax.configs import cifar100, common
from tests.plan.planned import work


def test_datasets_by_their_names_elsewhere():
    config = common.get_config("fashion")
    planned = work(config).real
    assert planned.info.name == "fashion_mnist"
    assert planned.info.image_shape == (28, 28, 1)
    assert planned.images == {"train": 60_000, "validation": 0, "test": 10_000}


def test_a_dataset_of_unknown_size_is_refused():
    with pytest.raises(ValueError, match="folder:somewhere"):
        _ = work(common.get_config("folder:somewhere")).real


def test_some_classes_have_their_share_of_the_images():
    config = cifar100.get_config("tuning.enabled=True")
    found = work(config).real.of_classes(40)
    assert found.info.num_classes == 40
    assert found.images == {"train": 18_000, "validation": 2_000, "test": 4_000}
