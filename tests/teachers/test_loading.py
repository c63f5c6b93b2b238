"""A teacher in one call, from weights that others trained."""

import pathlib

import numpy as np
import pytest

import gift_jax
from gift_jax.data import Normalization
from gift_jax.runtime.errors import InputError

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"
STATISTICS = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.fixture
def checkpoint():
    shared = pathlib.Path(__file__).resolve().parents[3] / "shared"
    path = shared / "data" / "teachers" / "resnet20-12fca82f.th"
    if not path.exists():
        pytest.skip("needs the CIFAR ResNet-20 of akamaster/pytorch_resnet_cifar10")
    return path


def test_a_network_is_recognised_and_classifies(checkpoint):
    teacher = gift_jax.load_teacher(
        checkpoint, num_classes=10, image_size=32, preprocess=STATISTICS
    )
    golden = np.load(checkpoint.parents[2] / "golden" / "resnet20_cifar10.npz")
    logits = teacher.logits(golden["images_uint8"].astype(np.float32) / 255)
    np.testing.assert_allclose(logits, golden["logits"], atol=2e-4)


def test_options_need_the_name_of_their_network(checkpoint):
    with pytest.raises(InputError, match="width, modle given without a network"):
        gift_jax.load_teacher(
            checkpoint, num_classes=10, image_size=32, preprocess=STATISTICS,
            width=64, modle="resnet20",
        )  # fmt: skip


def test_what_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match=r"weights\.pth"):
        gift_jax.load_teacher(
            path, num_classes=10, image_size=32, preprocess=STATISTICS
        )
