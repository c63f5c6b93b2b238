"""The teacher of a config."""

import jax
import pytest

from gift_jax import models, torch_io
from gift_jax.configs import digits
from gift_jax.data import info
from gift_jax.runtime.errors import InputError
from gift_jax.specs import TeacherSpec


def teacher(**fields):
    section = digits.get_config().teacher
    section.update(fields)
    return TeacherSpec.from_section(section, seed=3, image_size=8)


def test_one_that_is_trained_here():
    spec = teacher()
    assert spec.label == "conv3-width=32" and spec.preprocess is None
    training = spec.training
    assert (training.epochs, training.batch_size, training.seed) == (30, 128, 3)
    assert (training.optimizer.name, training.optimizer.learning_rate) == ("sgd", 0.1)
    assert training.augmentation.pad_crop == 1


def test_one_that_is_imported_is_not_trained():
    spec = teacher(checkpoint="file.pth", mean=(0.5,), std=(0.25,))
    assert spec.training is None
    assert spec.preprocess.mean == (0.5,)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label_noise": 1.0}, r"label_noise is 1.0, expected a fraction"),
        ({"label_noise": -0.1}, r"label_noise is -0.1, expected a fraction"),
        (
            {"label_noise": 0.4, "checkpoint": "file.pth"},
            "label_noise is 0.4, but conv3 is not trained here",
        ),
    ],
)
def test_label_noise_that_cannot_be_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        teacher(**fields)
    assert teacher(label_noise=0.4).training.label_noise == 0.4


def test_one_of_the_user_s_own_is_no_network():
    spec = teacher(name="my_teacher:build")
    assert spec.network is None and spec.training is None
    assert spec.label == "my_teacher:build"


def test_one_whose_network_is_recognised(tmp_path, monkeypatch):
    path = tmp_path / "observer.pth"
    size = {"num_classes": 10, "image_size": 8, "width": 6, "norm": "none"}
    model = models.create_model("conv2", **size)
    weights = models.init_variables(model, jax.random.key(0), image_size=8, channels=1)
    state = torch_io.export_torch(weights, model="conv2", **size)
    torch_io.save_torch(path, {"model": state})
    spec = teacher(name="auto", checkpoint=str(path), dtype="bfloat16")
    assert spec.name == spec.label == "conv2-dtype=bfloat16-norm=none-width=6"
    assert spec.training is None
    named = teacher(
        name="conv2-norm=none-width=6", checkpoint=str(path), dtype="bfloat16"
    )
    assert spec.network == named.network
    monkeypatch.setenv("HOME", str(tmp_path))
    assert teacher(name="auto", checkpoint="~/observer.pth").network.name == "conv2"


def test_several():
    spec = teacher(
        checkpoint="a.pth", also=("conv2-norm=none", "conv3-width=8@~/b.pth")
    )
    labels = ["conv3-width=32", "conv2-norm=none-width=32", "conv3-width=8"]
    assert [member.label for member in spec.members] == labels
    assert spec.label == "+".join(labels)
    imported, trained, other = spec.members
    assert imported.training is None and other.training is None
    assert trained.training.seed == 3 and trained.checkpoint == ""
    assert other.checkpoint.endswith("/b.pth") and "~" not in other.checkpoint
    (alone,) = teacher().members
    assert alone == teacher()


def test_one_that_pytorch_runs():
    spec = teacher(name="timm:org/resnet18.a1_in1k", checkpoint="file.pth")
    assert spec.network is None and spec.training is None
    assert spec.label == "timm:org_resnet18.a1_in1k"


def test_its_network_is_for_the_images_that_it_sees():
    digits_info = info.dataset_info("digits")
    seen = {"resize": 20, "crop": 16}
    with pytest.raises(InputError, match=r"side 16, but those of digits are of side 8"):
        teacher(checkpoint="x.pth", **seen).build(digits_info)
    with pytest.raises(InputError, match=r"set teacher\.crop to 8"):
        teacher(transform_views=True, **seen).build(digits_info)
    spec = teacher(checkpoint="x.pth", transform_views=True, **seen)
    assert spec.build(digits_info).image_size == 16
    assert teacher(resize=10, crop=8).build(digits_info).image_size == 8


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "auto"}, r"is 'auto', but teacher\.checkpoint is ''"),
        ({"crop": 9, "resize": 8}, r"teacher\.crop is 9"),
        ({"name": "conv99"}, "unknown teacher 'conv99'.*package.module:attribute"),
        ({"epochs": 0}, r"teacher\.epochs is 0"),
        ({"batch_size": 0}, r"teacher\.batch_size is 0"),
        ({"mean": (0.5,)}, r"teacher\.mean and teacher\.std"),
        ({"name": "mine:build", "checkpoint": "x.pth"}, "load weights there"),
        (
            {"name": "mine:build", "mean": (0.5,), "std": (0.2,)},
            r"mean is \(0.5,\), but mine:build is given pixels .* normalise there",
        ),
        ({"also": ("mine:build",)}, r"of conv3-width=32, mine:build some are none"),
        ({"also": ("conv3@x.pth",)}, r"twice: conv3-width=32, conv3-width=32"),
        ({"also": (3,)}, r"teacher\.also is \(3,\), expected names"),
        ({"also": ("conv99",)}, "unknown teacher 'conv99'"),
    ],
)
def test_mistakes(fields, message):
    with pytest.raises(InputError, match=message):
        teacher(**fields)
