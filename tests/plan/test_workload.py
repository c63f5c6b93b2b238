"""What a job makes a machine do, against counts by hand and the library itself."""

import numpy as np
import pytest

from configs import cifar10, common, digits, imagenet1k, imagenet1k_resnet18
from gift_jax import distill
from gift_jax.distill import rded
from gift_jax.evaluators.accuracy import RESIDENT_BYTES
from gift_jax.pipeline import students
from gift_jax.plan import workload
from gift_jax.runtime import hosts
from gift_jax.train import batches
from tests.plan.planned import work


def test_numbers_of_other_modules_are_theirs():
    assert workload._SCORED_AT_ONCE == rded._BATCH
    assert workload._STUDENTS_AT_ONCE == students._MOST_AT_ONCE


def test_datasets_by_their_names_elsewhere():
    config = common.get_config("fashion")
    planned = work(config)
    assert planned.info.name == "fashion_mnist"
    assert planned.image_shape == (28, 28, 1)
    assert planned.real_images == {"train": 60_000, "validation": 0, "test": 10_000}


def test_a_dataset_of_unknown_size_is_refused():
    with pytest.raises(ValueError, match="folder:somewhere"):
        _ = work(common.get_config("folder:somewhere")).info


def test_tuning_adds_trainings_and_takes_images_from_the_teacher():
    config = cifar10.get_config("tuning.enabled=True")
    config.train.seeds = (0, 1)
    tuned = work(config)
    assert [t[1:] for t in tuned.trainings] == [
        (2, "test"),
        (5, "validation"),
        (2, "test"),
    ]
    assert tuned.real_images["train"] == 45_000
    assert tuned.real_images["validation"] == 5_000


# --- Devices ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("v4-8", "", 4),
        ("8xh100", "", 5),
        ("8xh100", "batch_size=128", 8),
        ("v5e-64", "batch_size=128", 64),
        ("16xh100", "", 10),
    ],
)
def test_devices_of_a_training_are_those_the_job_takes(
    monkeypatch, name, options, expected
):
    planned = work(imagenet1k.get_config(options), name)
    assert planned.devices_for(planned.batch_size) == expected
    monkeypatch.setattr(hosts, "count", lambda: planned.machine.hosts)
    monkeypatch.setattr(hosts, "devices", lambda local: local * hosts.count())
    local = tuple(range(planned.machine.host_devices))
    assert len(batches.devices_for(planned.batch_size, local)) == expected


def test_batches_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="batch of 100 does not divide over 16 hosts"):
        work(imagenet1k.get_config(), "v5e-64").devices_for(100)
    with pytest.raises(ValueError, match="100 does not divide over 64 devices"):
        work(imagenet1k.get_config("batch_size=100"), "v5e-64").devices_for(100)


# --- Forward passes -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "steps", "per_device"),
    [
        ("v4-8", 100, 125),
        # 500 / 64 is 8 for each of the 4 devices of 16 hosts, with 3,125 images each.
        ("v5e-64", 98, 8),
    ],
)
def test_evaluations_are_padded(name, steps, per_device):
    found = work(imagenet1k.get_config(), name).evaluation("test")
    assert found[:2] == (steps, per_device)


def test_crops_are_scored_class_by_class_on_one_device():
    planned = work(imagenet1k_resnet18.get_config())
    # 300 images of 5 crops are 1,500 of each class: six times 256.
    assert planned.scoring(distill.Rded(ipc=10)) == (6 * 1000, 256, 1)
    # Digits have 143 images of a class, fewer than the 300 that are asked for.
    planned = work(digits.get_config("distill=rded"))
    assert planned.scoring(distill.Rded(ipc=1)).steps == 10 * int(
        np.ceil(143 * 5 / 256)
    )


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        # A view of 10,000 images and 1,000 classes is stored in 2 chunks of 5,000,
        # which are 20 batches of 256.
        ("v4-8", "", (300 * 2 * 20, 64, 4)),
        # Host 0 of 16 labels 38 of the 600 chunks.
        ("v5e-64", "batch_size=128", (38 * 20, 64, 64)),
        # 7 devices pad the batch to 259.
        ("7xh100", "", (300 * 2 * 20, 37, 7)),
        # One view for all epochs.
        ("v4-8", "relabel.views=1", (2 * 20, 64, 4)),
        # Once for both students, which train at once.
        ("v4-8", "relabel.source=online", (300 * 40, 64, 4)),
        # Both hosts label all; one student after the other.
        (
            "16xh100",
            "relabel.source=online,train.students_at_once=1",
            (2 * 300 * 40, 32, 8),
        ),
    ],
)
def test_relabelling_takes_the_chunks_of_the_store(name, options, expected):
    config = imagenet1k_resnet18.get_config(options)
    config.train.seeds = (0, 1)
    assert work(config, name).labelling == expected


# --- Bytes --------------------------------------------------------------------------


def test_soft_labels_of_imagenet():
    config = imagenet1k.get_config()
    assert work(config).stored[0] == 6_000_000_000
    config.relabel.format = "top10"
    assert work(config).stored[0] == 300 * 10_000 * 42
    config.relabel.source = "online"
    assert work(config).stored[0] == 0


def test_test_images_lie_on_the_devices_if_they_are_few():
    assert work(imagenet1k.get_config()).resident_bytes == 50_000 * 64 * 64 * 3 / 4
    large = imagenet1k_resnet18.get_config()
    assert work(large, "v4-8").resident_bytes == 0
    assert work(large, "v5e-64").resident_bytes == 50_000 * 224 * 224 * 3 / 64
    assert work(large, "v5e-64").resident_bytes < RESIDENT_BYTES
