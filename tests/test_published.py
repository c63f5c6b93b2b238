"""Published weights and data reach their accuracies: pytest -m slow.

On the test split of CIFAR-10 in ../shared, whose images are JPEG re-encodings: the
accuracies are lower than on the originals.
"""

from pathlib import Path

import jax
import numpy as np
import pytest

from gift_jax.data import info, real
from gift_jax.distilled import read_distilled
from gift_jax.evaluators import AccuracyEvaluator
from gift_jax.models import create_model
from gift_jax.torch_io.torch_import import import_torch

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
TEACHERS = SHARED / "teachers"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not TEACHERS.exists(), reason="needs the teachers and CIFAR-10 in ../shared"
    ),
]

CIFAR10 = {"num_classes": 10, "image_size": 32}


@pytest.mark.parametrize(
    ("file", "name", "normalization", "top1"),
    [
        ("resnet20-12fca82f.th", "resnet20", info.IMAGENET, 81.03),
        ("cifar10_conv3.pth", "conv3", info.CIFAR, 82.62),
    ],
)
def test_teacher_has_its_accuracy_on_the_test_split(file, name, normalization, top1):
    dataset = real.load_dataset("cifar10", data_dir=SHARED / "tfds")
    evaluator = AccuracyEvaluator(
        dataset.test, normalization, devices=jax.devices()[:1], batch_size=500
    )
    variables = import_torch(TEACHERS / file, model=name, **CIFAR10)
    accuracy = evaluator.measure(create_model(name, **CIFAR10), variables)
    assert accuracy.count == 10_000
    assert accuracy.top1 == pytest.approx(top1, abs=0.05)


def test_teacher_recognises_all_images_distilled_with_it():
    dataset = read_distilled(SHARED / "distilled/cifar10_conv3_rded_ipc10/data.pt")
    variables = import_torch(TEACHERS / "cifar10_conv3.pth", model="conv3", **CIFAR10)
    assert dataset.preprocess == info.CIFAR
    model = create_model("conv3", **CIFAR10)
    logits = model.apply(variables, dataset.inputs(), train=False)
    assert len(dataset) == 100
    np.testing.assert_array_equal(np.argmax(logits, axis=1), dataset.labels)
