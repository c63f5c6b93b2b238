"""Sizes of real datasets."""

import numpy as np
import pytest

from gift_jax.configs import cifar100, common
from gift_jax.data import real
from gift_jax.data.preprocess import Normalization
from gift_jax.runtime.errors import InputError
from tests.data.samples import write_image
from tests.plan.planned import stages, work


def test_datasets_by_their_names_elsewhere():
    config = common.get_config("fashion")
    planned = work(config).real
    assert planned.info.name == "fashion_mnist"
    assert planned.info.image_shape == (28, 28, 1)
    assert planned.images == {"train": 60_000, "validation": 0, "test": 10_000}


def test_no_more_images_are_held_out_than_there_are():
    config = common.get_config("digits")
    config.tuning.enabled = True
    config.tuning.validation_images = 1_437
    with pytest.raises(InputError, match="1437 images are held out of the 1437 train"):
        _ = work(config).real


@pytest.fixture
def grey_folder(tmp_path):
    """Seven train and three test images of 10x10 pixels, of three classes."""
    for split, counts in (("train", (3, 3, 1)), ("val", (1, 1, 1))):
        for label, count in enumerate(counts):
            for number in range(count):
                pixels = np.full((10, 10), number, np.uint8)
                write_image(tmp_path / split / str(label) / f"{number}.png", pixels)
    return tmp_path


def test_a_dataset_of_ones_own_is_opened_for_its_size(grey_folder, monkeypatch):
    monkeypatch.setattr(real, "channel_statistics", None)  # which reads every image
    planned = work(common.get_config(f"folder:{grey_folder}")).real
    assert planned.info.num_classes == 3
    assert planned.info.image_shape == (10, 10, 1)
    assert len(planned.info.normalization.mean) == 1
    assert planned.images == {"train": 7, "validation": 0, "test": 3}
    config = common.get_config(f"folder:{grey_folder}")
    config.tuning.enabled = True
    config.tuning.validation_images = 2
    config.dataset.mean, config.dataset.std = (0.5,), (0.2,)
    planned = work(config).real
    assert planned.images == {"train": 5, "validation": 2, "test": 3}
    assert planned.info.normalization == Normalization((0.5,), (0.2,))


def test_a_plan_of_a_dataset_of_ones_own(grey_folder):
    config = common.get_config(f"folder:{grey_folder}")
    config.distilled.name, config.distilled.ipc = "random", 1
    config.teacher.name = config.student.name = "conv1-width=4"
    _, images, _ = stages(config)["test of the teacher"].arguments
    assert images.shape == (1, 10, 10, 1)


def test_a_dataset_that_is_not_there_is_refused():
    with pytest.raises(FileNotFoundError, match="somewhere/train"):
        _ = work(common.get_config("folder:somewhere")).real
    with pytest.raises(InputError, match="cifar11"):
        _ = work(common.get_config("cifar11")).real


def test_some_classes_have_their_share_of_the_images():
    config = cifar100.get_config("tuning.enabled=True")
    found = work(config).real.of_classes(40)
    assert found.info.num_classes == 40
    assert found.images == {"train": 18_000, "validation": 2_000, "test": 4_000}
