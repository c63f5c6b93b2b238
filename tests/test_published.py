"""Published weights and data reach their accuracies: pytest -m slow.

On the test splits in ../shared. The images of CIFAR-10 are JPEG re-encodings: its
accuracies are lower than on the originals. Those of CIFAR-100 are the originals.
"""

from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import tiny_imagenet_teacher
from gift_jax import inspect, losses
from gift_jax.augment import DIFFAUG_STRATEGY, AugmentSpec
from gift_jax.data import info, preprocess, real
from gift_jax.distilled import read_distilled
from gift_jax.evaluators import AccuracyEvaluator
from gift_jax.evaluators.accuracy import evaluate
from gift_jax.models import create_model
from gift_jax.optimizers import OptimizerSpec
from gift_jax.soft_labels import AugmentedViews, FixedSoftLabels
from gift_jax.soft_labels.views import train_data
from gift_jax.torch_io.torch_import import import_torch
from gift_jax.train.fit import fit
from gift_jax.train.step import new_student

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
TEACHERS = SHARED / "teachers"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not TEACHERS.exists(), reason="needs the teachers and CIFAR-10 in ../shared"
    ),
]

CIFAR10 = {"num_classes": 10, "image_size": 32}


# Of chenyaofo/pytorch-cifar-models, which publishes 72.63 for its ResNet-56.
CHENYAOFO = preprocess.Normalization((0.5070, 0.4865, 0.4409), (0.2673, 0.2564, 0.2761))
PROJECTION = {"shortcut": "projection"}


@pytest.mark.parametrize(
    ("file", "dataset", "name", "options", "normalization", "top1"),
    [
        ("resnet20-12fca82f.th", "cifar10", "resnet20", {}, info.IMAGENET, 81.03),
        ("cifar10_conv3.pth", "cifar10", "conv3", {}, info.CIFAR, 82.62),
        (
            "cifar100_resnet56.pth",
            "cifar100",
            "resnet56",
            PROJECTION,
            CHENYAOFO,
            72.63,
        ),
    ],
)
def test_teacher_has_its_accuracy_on_the_test_split(
    file, dataset, name, options, normalization, top1
):
    data = real.load_dataset(dataset, data_dir=SHARED / "tfds")
    evaluator = AccuracyEvaluator(
        data.test, normalization, devices=jax.devices()[:1], batch_size=500
    )
    size = {"num_classes": data.info.num_classes, "image_size": 32}
    variables = import_torch(TEACHERS / file, model=name, **size, **options)
    model = create_model(name, **size, **options)
    accuracy = evaluator.measure(model, variables)
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


# Images a class, and twice chance: what no other order of the classes would give, and a
# student of the hard labels (DATM's: of those learnt with the images) exceeds.
SETS = {
    "cifar10_conv3_rded_ipc10/data.pt": ("cifar10", 10, 20),
    "rfad_cifar10_ipc10.npz": ("cifar10", 10, 20),
    "ddranking_datm_cifar10_ipc10": ("cifar10", 10, 20),
    "ddranking_dc_cifar10_ipc1": ("cifar10", 1, 20),
    "dc_family/res_DC_CIFAR10_ConvNet_1ipc.pt": ("cifar10", 1, 20),
    "dc_family/res_DC_CIFAR10_ConvNet_10ipc.pt": ("cifar10", 10, 20),
    "d4m_cifar100_ipc10": ("cifar100", 10, 2),
    "d4m_tiny_imagenet_ipc1": ("tiny_imagenet", 1, None),  # no real images there
}


@pytest.mark.parametrize("name", SETS)
def test_a_published_set_is_recognised_shown_and_trained_on(
    name, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("TFDS_DATA_DIR", str(SHARED / "tfds"))
    of, ipc, least = SETS[name]
    path = SHARED / "distilled" / name
    assert inspect.main([str(path), "--preview", str(tmp_path / "seen.png")]) == 0
    said = capsys.readouterr().out
    assert of in said
    assert min(Image.open(tmp_path / "seen.png").size) > 0
    data = None if least is None else real.load_dataset(of)
    images = data.train.all_images if data else None
    made = read_distilled(path, dataset=of, ipc=ipc, train_images=images)
    arrays, normalization = train_data(made, seed=0)
    side, num_classes = made.images.shape[1], made.metadata.num_classes
    model = create_model("conv3", num_classes=num_classes, image_size=side, width=32)
    epochs = 40 if len(made) <= 200 else 8
    length = {"epochs": epochs, "batch_size": min(len(made), 20)}
    learnt = made.soft_labels if made.metadata.method == "datm" else None
    fitted = fit(
        new_student(model, OptimizerSpec("muon"), arrays, **length),
        arrays,
        None if learnt is None else FixedSoftLabels(learnt, views=epochs),
        loss=losses.get_loss("ce" if learnt is None else "soft_ce"),
        view_images=AugmentedViews(
            AugmentSpec(diffaug=DIFFAUG_STRATEGY), normalization
        ),
        order_key=jax.random.key(0),
        devices=jax.devices()[:1],
        **length,
    )
    inputs = made.inputs()
    logits = model.apply(fitted.state.evaluation_variables, inputs, train=False)
    assert np.mean(np.argmax(logits, axis=1) == made.labels) > 0.3
    if data:
        some = np.arange(2000)
        shown, labels = data.test.images(some), data.test.labels[some]
        assert evaluate(fitted.state, shown, labels, made.preprocess).top1 > least


def test_a_teacher_of_one_s_own_recognises_generated_images(monkeypatch):
    """53.9% of Tiny-ImageNet's validation images, and 37 of D4M's 200."""
    path = TEACHERS / "mobilenetv2_tinyimagenet.pt"
    monkeypatch.setenv("TINY_IMAGENET_TEACHER", str(path))
    made = read_distilled(
        SHARED / "distilled" / "d4m_tiny_imagenet_ipc1",
        "folders",
        dataset=info.dataset_info("tiny_imagenet"),
        ipc=1,
    )
    logits = np.asarray(tiny_imagenet_teacher.build()(np.asarray(made.images)))
    assert (logits.argmax(1) == made.labels).sum() == 37
